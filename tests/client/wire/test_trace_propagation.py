"""A program's trace goes on at the server, and a program without one carries nothing."""

import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_span_id, format_trace_id

from charlm_client.wire import trace_propagation
from charlm_client.wire.trace_propagation import trace_context


def test_the_current_span_is_sent_as_traceparent() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a program")

    with tracer.start_as_current_span("asking") as span:
        told = dict(trace_context())

    present = span.get_span_context()
    version, trace_id, span_id, _flags = told["traceparent"].split("-")
    assert version == "00"
    assert trace_id == format_trace_id(present.trace_id)
    assert span_id == format_span_id(present.span_id)


def test_without_a_span_nothing_is_sent() -> None:
    assert trace_context() == []


def test_opentelemetry_is_not_imported_by_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, trace_propagation.TRACING)

    assert trace_context() == []
    assert trace_propagation.TRACING not in sys.modules
