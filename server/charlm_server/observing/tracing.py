"""A span for every call, as part of the caller's trace, sent to an OpenTelemetry collector.

The names are those of OpenTelemetry's conventions for RPC (stable) and generative models.
Imported only when traces are asked for; needs the extra `charlm[tracing]`.
"""

import threading
import time
from urllib.parse import urlsplit

from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from charlm_server.calls.call import OK, Call
from charlm_server.observing.version import VERSION

# Codes of server errors; the others are errors of the caller.
FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
GENERATING = "charlm.v1.GenerationService/"
OTHER = "_OTHER"  # the conventions' name for an unknown method


class Tracing:
    """Observes calls. Whether one is recorded is the sampler's decision, or the caller's."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("charlm_server", VERSION)
        self._spans: dict[Call, Span] = {}
        self._epoch_s = time.time() - time.monotonic()  # of the monotonic clock

    def began(self, call: Call) -> None:
        method = call.method if "/" in call.method else OTHER
        span = self._tracer.start_span(
            method,
            propagate.extract(call.metadata),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
            start_time=self._ns(call.began_at),
        )
        call.trace_id = format_trace_id(span.get_span_context().trace_id)
        self._spans[call] = span

    def ended(self, call: Call) -> None:
        span = self._spans.pop(call)
        if span.is_recording():
            self._describe(span, call)
            self._add_phases(span, call)
        span.end(self._ns(call.ended_at))

    def close(self, seconds: float) -> None:
        """Export the remaining spans, within this time at most."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(seconds)

    def _describe(self, span: Span, call: Call) -> None:
        told: dict[str, AttributeValue] = {
            "rpc.response.status_code": call.code,
            "charlm.request_id": call.request_id,
            "charlm.received_characters": call.amounts.received_characters,
        }
        if call.method.startswith(GENERATING):
            told |= {
                "gen_ai.operation.name": "text_completion",
                "gen_ai.provider.name": "charlm",
                "gen_ai.request.model": call.model,
                "gen_ai.usage.input_tokens": call.amounts.prompt_tokens,
                "gen_ai.usage.output_tokens": call.amounts.generated_tokens,
            }
        elif call.model:
            told["charlm.model"] = call.model
        if call.caller:
            told["user.name"] = call.caller
        if call.code != OK:
            told["error.type"] = call.reason or call.code
        span.set_attributes(told)
        if call.code in FAULTS:
            span.set_status(Status(StatusCode.ERROR, call.reason))

    def _add_phases(self, span: Span, call: Call) -> None:
        """Adds child spans for queue, prefill and decode."""
        if call.first_at:
            span.add_event("first character", timestamp=self._ns(call.first_at))
        moments = [call.submitted_at, call.started_at, call.prefilled_at, call.ended_at]
        for name, began, ended in zip(
            ("queue", "prefill", "decode"), moments, moments[1:], strict=False
        ):
            if began and ended:
                self._add_phase(span, name, began, ended)

    def _add_phase(self, span: Span, name: str, began: float, ended: float) -> None:
        within = set_span_in_context(span)
        phase = self._tracer.start_span(name, within, start_time=self._ns(began))
        phase.end(self._ns(ended))

    def _ns(self, moment: float) -> int:
        return round((moment + self._epoch_s) * 1e9)


def tracing_to(endpoint: str) -> Tracing:
    """Spans go to a collector that speaks OTLP over gRPC, http:// or https://."""
    resource = Resource.create({SERVICE_NAME: "charlm", SERVICE_VERSION: VERSION})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    is_plain = urlsplit(endpoint).scheme != "https"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=is_plain)))
    return Tracing(provider)
