"""What a scrape of a real server says is what its callers saw."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from charlm.v1 import codec_pb2, scoring_pb2, state_pb2
from charlm.v1 import generation_pb2 as gen
from charlm.v1.codec_pb2_grpc import CodecServiceStub
from charlm_server.config.limits import Limits
from charlm_server.errors.base import ServeError
from charlm_server.observing.call_counters import CallCounters
from charlm_server.observing.metrics import MetricsServer
from charlm_server.observing.sources import Sources
from charlm_server.scheduling.heartbeat import Heartbeat
from tests.server.conftest import Clock
from tests.server.gate import Gate
from tests.server.wire import Wire, serving, text_of

LSTM, GRU = "models/lstm-char", "models/gru-byte"
GENERATION, SCORING = "charlm.v1.GenerationService", "charlm.v1.ScoringService"
ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "observability.md"
DASHBOARD = ROOT / "deploy" / "observability" / "grafana" / "dashboards" / "charlm.json"
ALERTS = ROOT / "deploy" / "observability" / "alerts.yml"


class Scrape:
    """One answer of a metrics port."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        totals = {"counter": "_total"}
        self.families = {family.name + totals.get(family.type, "") for family in families}
        self.names = {sample.name for family in families for sample in family.samples}
        self.values: dict[tuple[str, ...], float] = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, *labels: str) -> float:
        return self.values.get((f"charlm_{name}", *sorted(labels)), 0.0)

    def all_of(self, name: str) -> dict[tuple[str, ...], float]:
        """Values by their labels."""
        full = f"charlm_{name}"
        return {key[1:]: value for key, value in self.values.items() if key[0] == full}


async def scrape(wire: Wire, num_open: int = 0) -> Scrape:
    """Once all but so many calls have ended on the server too."""
    async with asyncio.timeout(30):
        seen = await scrape_now(wire)
        while sum(seen.all_of("open_calls").values()) > num_open:
            seen = await scrape_now(wire)
        return seen


async def scrape_now(wire: Wire) -> Scrape:
    address = wire.app.telemetry.metrics_address
    return Scrape(await asyncio.to_thread(fetched, f"http://{address}/metrics"))


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte"), metrics_port=0) as running:
        yield running


def asked(model: str, num_tokens: int, text: str = "") -> gen.GenerateRequest:
    return gen.GenerateRequest(
        model=model,
        context={"text": text},
        stopping={"max_new_tokens": num_tokens, "ignore_end_of_text": True},
    )


async def code_of(call: grpc.aio.UnaryUnaryCall) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.slow
async def test_under_load_the_counters_are_what_the_callers_saw(wire: Wire) -> None:
    lengths = [1 + 37 * number % 200 for number in range(24)]
    texts = ["once", "upon a time"] * 6

    async def abandoned() -> None:
        call = wire.generation.StreamGenerate(
            gen.StreamGenerateRequest(generate=asked(GRU, 1_000_000))
        )
        await call.read()
        call.cancel()

    streams, whole, scores, refusals, _ = await asyncio.gather(
        asyncio.gather(*(wire.stream(asked(LSTM, length, "abc")) for length in lengths)),
        asyncio.gather(*(wire.generation.Generate(asked(LSTM, length)) for length in lengths)),
        asyncio.gather(
            *(
                wire.scoring.Score(scoring_pb2.ScoreRequest(model=LSTM, items=[{"text": text}]))
                for text in texts
            )
        ),
        asyncio.gather(
            *(code_of(wire.generation.Generate(asked("models/none", 1))) for _ in range(5)),
            *(code_of(wire.generation.Generate(asked(LSTM, 10**9))) for _ in range(3)),
        ),
        asyncio.gather(*(abandoned() for _ in range(7))),
    )
    seen = await scrape(wire)

    assert [code.name for code in refusals] == ["NOT_FOUND"] * 5 + ["INVALID_ARGUMENT"] * 3
    stream, generate, score = [
        f"{GENERATION}/StreamGenerate", f"{GENERATION}/Generate", f"{SCORING}/Score"
    ]  # fmt: skip
    assert seen.all_of("calls_total") == {
        tuple(sorted(labels)): num
        for *labels, num in [
            (stream, "OK", 24), (stream, "CANCELLED", 7), (generate, "OK", 24),
            (generate, "NOT_FOUND", 5), (generate, "INVALID_ARGUMENT", 3), (score, "OK", 12),
        ]
    }  # fmt: skip
    assert seen("refusals_total", generate, "MODEL_NOT_FOUND") == 5
    assert seen("refusals_total", generate, "INVALID_FIELD") == 3
    assert sum(seen.all_of("open_calls").values()) == 0
    assert seen("call_duration_seconds_count", stream) == 31
    outputs = [text_of(responses) for responses in streams]
    outputs += [response.outputs[0].text for response in whole]
    assert seen("generated_characters_total", LSTM) == sum(map(len, outputs))
    assert seen("generated_tokens_total", LSTM) == 2 * sum(lengths)
    assert seen("sampled_tokens_total", LSTM) >= 2 * sum(lengths)
    assert seen("prompt_tokens_total", LSTM) == 24 * len("abc")
    assert seen("scored_characters_total", LSTM) == sum(map(len, texts))
    assert seen("scored_tokens_total", LSTM) == sum(s.scores[0].num_tokens for s in scores)
    assert seen("received_characters_total", LSTM) == 24 * len("abc") + sum(map(len, texts))
    assert seen("first_character_seconds_count", LSTM) == 24
    assert seen("first_character_seconds_count", GRU) == 7
    num_messages = sum(map(len, streams))
    assert seen("between_chunks_seconds_count", LSTM) == num_messages - 24
    assert seen("queue_wait_seconds_count", LSTM) == 24 + 24 + 12


@pytest.mark.slow
async def test_a_stuck_engine_and_its_queue_are_seen_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, gate, limits = Clock(), Gate(), Limits(max_queued_requests=2, caller_share=1.0)
    async with serving(("lstm", "char"), metrics_port=0, limits=limits) as wire:
        [model] = wire.models
        scheduler = model.scheduler
        monkeypatch.setattr(scheduler, "heartbeat", Heartbeat(clock))
        engine = scheduler._engine  # its tick is what gets stuck
        monkeypatch.setattr(engine, "tick", gate.before(engine.tick))

        first = wire.generation.Generate(asked(LSTM, 5, "a"))
        await asyncio.to_thread(gate.reached.wait)
        others = [wire.generation.Generate(asked(LSTM, 5, "a")) for _ in range(3)]
        codes = [asyncio.ensure_future(code_of(call)) for call in others]
        [refused], waiting = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
        clock.now += 31
        stuck = await scrape(wire, num_open=3)
        gate.opened.set()
        await asyncio.gather(first, *waiting)
        well = await scrape(wire)

    assert refused.result() is grpc.StatusCode.RESOURCE_EXHAUSTED
    method = f"{GENERATION}/Generate"
    assert stuck("engine_serving", LSTM) == 0
    assert stuck("engine_silent_seconds", LSTM) == 31
    assert stuck("queue_requests", LSTM) == 2
    assert stuck("queue_tokens", LSTM) == 2 * (len("_a") + 5)  # the start of a text is a token
    assert stuck("open_calls", method) == 3
    assert stuck("refusals_total", method, "QUEUE_FULL") == 1
    assert well("engine_serving", LSTM) == 1
    assert well("queue_requests", LSTM) == 0
    assert well("engine_tick_seconds_count", LSTM) > 0


async def test_states_models_and_memory_are_exported(wire: Wire) -> None:
    before = await scrape(wire)
    created = await wire.states.CreateState(state_pb2.CreateStateRequest(model=LSTM))
    after = await scrape(wire)

    assert (before("states"), after("states")) == (0, 1)
    assert after("states_bytes") == created.state.num_bytes
    assert after("models") == 2
    assert after("batch_capacity_rows", LSTM) == 8
    assert after.values["process_resident_memory_bytes",] > 1e6
    assert "charlm_build_info" in after.names
    for model in wire.models:
        made_by = model.checkpoint.digest, model.numerics
        assert after("model_info", model.name, model.checkpoint.config.family, *made_by) == 1


async def test_unknown_methods_and_models_add_no_labels(wire: Wire) -> None:
    for number in range(20):
        method = wire.channel.unary_unary(f"/evil.Service{number}/Method{number}")
        assert await code_of(method(b"")) is grpc.StatusCode.UNIMPLEMENTED
        await code_of(wire.generation.Generate(asked(f"models/{number}", 1)))

    seen = await scrape(wire)

    assert seen("calls_total", "other", "UNIMPLEMENTED") == 20
    assert len(seen.all_of("calls_total")) == 2
    assert not [key for key in seen.values if any("evil" in part for part in key)]


async def test_compressed_text_is_counted(wire: Wire) -> None:
    async def requests() -> AsyncIterator[codec_pb2.CompressRequest]:
        yield codec_pb2.CompressRequest(model=GRU, data=b"a few words")

    async for _ in CodecServiceStub(wire.channel).Compress(requests()):
        pass
    seen = await scrape(wire)

    assert seen("coded_bytes_total", GRU) == len(b"a few words")
    assert seen("received_characters_total", GRU) == len(b"a few words")


async def test_the_document_lists_what_is_exported(wire: Wire) -> None:
    exported = {name for name in (await scrape(wire)).families if name.startswith("charlm_")}
    listed = re.findall(r"(?m)^\| `(charlm_\w+)", DOCUMENT.read_text(encoding="utf-8"))

    assert sorted(listed) == sorted(exported)


async def test_the_dashboard_and_the_alerts_ask_for_what_is_exported(wire: Wire) -> None:
    """After a refused call, so that nothing is missing for want of an event."""
    await code_of(wire.generation.Generate(asked("models/none", 1)))
    await wire.generation.Generate(asked(LSTM, 1))
    seen = await scrape(wire)
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
    expressions += [rule["expr"] for rule in rules]

    names = set(re.findall(r"\b(?:charlm|process)_\w+", " ".join(expressions)))

    assert len(names) > 20
    assert names <= seen.names


async def test_a_port_in_use_is_reported_in_a_sentence(wire: Wire) -> None:
    port = int(str(wire.app.telemetry.metrics_address).rpartition(":")[2])
    app = wire.app
    sources = Sources(wire.models, lambda: 0, app.states, app.monitor)

    with pytest.raises(ServeError, match="--metrics-port"):
        MetricsServer("127.0.0.1", port, CallCounters(), sources)
