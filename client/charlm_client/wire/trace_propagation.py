"""Sends the current trace context with every call, so that the server's spans join the trace.

charlm does not depend on OpenTelemetry: only a program that has imported it has a context.
"""

import sys
from collections.abc import Callable
from typing import Any

import grpc

TRACING = "opentelemetry.trace"


class PropagatingChannel:
    """A channel for stubs that adds the trace context to the metadata of every call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    def unary_unary(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _propagating(self._channel.unary_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _propagating(self._channel.unary_stream(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _propagating(self._channel.stream_unary(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _propagating(self._channel.stream_stream(*args, **options))


def trace_context() -> list[tuple[str, str]]:
    """The trace context as metadata, in the W3C format unless configured otherwise."""
    if TRACING not in sys.modules:
        return []
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return list(carrier.items())


def _propagating(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        return method(*args, metadata=trace_context() or None, **options)

    return call
