"""Makes a caller's trace go on at the server: its context goes along with every call.

charlm does not depend on OpenTelemetry. A program that traces has imported it; in any other there
is nothing to pass on.
"""

import sys
from collections.abc import Callable
from typing import Any

import grpc

TRACING = "opentelemetry.trace"


class PropagatingChannel:
    """A channel for stubs: whatever they call carries the present trace context."""

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
    """What tells a server which trace a call belongs to, as metadata; W3C's unless configured."""
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
