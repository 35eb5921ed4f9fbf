"""Every call is a span in its caller's trace, with its result and without its text."""

import threading
from collections.abc import AsyncIterator

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from charlm.v1 import generation_pb2 as gen
from charlm_client import Client, ModelNotFound, Stopping
from charlm_server.observing import setup
from charlm_server.observing.tracing import Tracing
from tests.server.wire import Wire, serving

MODEL = "models/lstm-char"
SECRET = "nobody may read this"


class Spans:
    """What a server exported, in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def __call__(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def wire(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(setup, "_tracing_of", lambda _: Tracing(spans.provider))
    async with serving(("lstm", "char")) as running:
        yield running


async def test_a_call_continues_its_callers_trace(wire: Wire, spans: Spans) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("a caller")
    with tracer.start_as_current_span("asking") as asking:
        async with (
            Client(wire.address) as client,
            client.stream_generate(
                "abc",
                model="lstm-char",
                stopping=Stopping(max_new_tokens=7, ignore_end_of_text=True),
            ) as stream,
        ):
            async for _ in stream:
                pass
    await wire.all_ended()
    found = spans()

    call = found["charlm.v1.GenerationService/StreamGenerate"]
    assert call.kind is SpanKind.SERVER
    assert call.parent is not None
    assert call.parent.span_id == asking.get_span_context().span_id
    assert {span.context.trace_id for span in found.values()} == {
        asking.get_span_context().trace_id
    }
    assert call.attributes is not None
    told = dict(call.attributes)
    assert told["rpc.system.name"] == "grpc"
    assert told["rpc.response.status_code"] == "OK"
    assert told["gen_ai.request.model"] == MODEL
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (3, 7)
    assert [event.name for event in call.events] == ["first character"]


async def test_queue_prefill_and_decode_are_within_the_call(wire: Wire, spans: Spans) -> None:
    await wire.stream(gen.GenerateRequest(model=MODEL, context={"text": "abc"}))
    await wire.all_ended()
    found = spans()

    call = found["charlm.v1.GenerationService/StreamGenerate"]
    moments = [call.start_time]
    for name in ("queue", "prefill", "decode"):
        phase = found[name]
        assert phase.parent is not None
        assert phase.parent.span_id == call.context.span_id
        moments += [phase.start_time, phase.end_time]
    assert moments == sorted(moments, key=lambda moment: moment or 0)
    assert found["queue"].end_time == found["prefill"].start_time


async def test_a_refusal_has_its_reason_and_is_not_a_server_error(wire: Wire, spans: Spans) -> None:
    async with Client(wire.address) as client:
        with pytest.raises(ModelNotFound):
            await client.generate("abc", model="nowhere")
    [call] = spans().values()

    assert call.attributes is not None
    assert call.attributes["error.type"] == "MODEL_NOT_FOUND"
    assert call.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert call.status.status_code is StatusCode.UNSET


async def test_no_span_holds_a_text_or_a_token(wire: Wire, spans: Spans) -> None:
    request = gen.GenerateRequest(model=MODEL, context={"text": SECRET})
    await wire.generation.Generate(request, metadata=(("authorization", "Bearer hunter2"),))
    await wire.all_ended()

    written = " ".join(span.to_json() for span in spans().values())

    assert "GenerationService/Generate" in written
    assert SECRET not in written
    assert "hunter2" not in written


async def test_what_the_sampler_drops_is_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter := InMemorySpanExporter()))
    monkeypatch.setattr(setup, "_tracing_of", lambda _: Tracing(provider))

    async with serving(("lstm", "char")) as wire:
        await wire.generation.Generate(gen.GenerateRequest(model=MODEL))

    assert exporter.get_finished_spans() == ()


def test_an_unresponsive_collector_does_not_delay_shutdown() -> None:
    class Deaf(InMemorySpanExporter):
        released = threading.Event()

        def shutdown(self) -> None:
            self.released.wait(60)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(deaf := Deaf()))

    Tracing(provider).close(seconds=0.01)

    assert not deaf.released.is_set()
    deaf.released.set()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Stands in for an OpenTelemetry collector: takes what comes by OTLP."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.mark.slow
async def test_spans_reach_a_collector_before_the_server_is_gone() -> None:
    collector, server = Collector(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async with serving(("lstm", "char"), otlp_endpoint=f"http://127.0.0.1:{port}") as wire:
        await wire.generation.Generate(gen.GenerateRequest(model=MODEL))
    await server.stop(None)

    [resource] = [each for request in collector.requests for each in request.resource_spans]
    names = {span.name for scope in resource.scope_spans for span in scope.spans}
    assert names == {"charlm.v1.GenerationService/Generate", "queue", "prefill", "decode"}
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes["service.name"] == "charlm"
