"""Health does not lie: a stuck engine is told of, and so is its recovery."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from charlm.v1 import generation_pb2 as gen
from charlm_server.pulse import Pulse
from tests.server.conftest import Clock
from tests.server.wire import Wire, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STUCK, WELL = "models/lstm-char", "models/gru-byte"


class Gate:
    """Stands in an engine's way until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def before(self, tick: Callable[..., Any]) -> Callable[..., Any]:
        """The same tick, behind this gate."""

        def gated(**options: Any) -> Any:
            self.reached.set()
            self.opened.wait(60)
            return tick(**options)

        return gated


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte")) as running:
        yield running


async def test_a_stuck_engine_is_told_of_and_so_is_its_recovery(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, gate, scheduler = Clock(), Gate(), wire.models[STUCK].scheduler
    monkeypatch.setattr(scheduler, "pulse", Pulse(clock))
    engine = scheduler._engine  # its tick is what gets stuck
    monkeypatch.setattr(engine, "tick", gate.before(engine.tick))
    stub = health_pb2_grpc.HealthStub(wire.channel)
    watches = [
        stub.Watch(health_pb2.HealthCheckRequest(service=name))
        for name in (STUCK, "charlm.v1.GenerationService", "")
    ]
    before = [(await watch.read()).status for watch in watches]

    call = wire.generation.Generate(gen.GenerateRequest(model=STUCK, context={"text": "a"}))
    await asyncio.to_thread(gate.reached.wait)
    clock.now += 29
    wire.app.monitor.look()
    in_time = await stub.Check(health_pb2.HealthCheckRequest(service=STUCK))
    clock.now += 2
    wire.app.monitor.look()
    meanwhile = [(await watch.read()).status for watch in watches]
    other = await stub.Check(health_pb2.HealthCheckRequest(service=WELL))
    gate.opened.set()
    await call
    await scheduler.nothing_open()
    wire.app.monitor.look()
    after = [(await watch.read()).status for watch in watches]

    assert in_time.status == SERVING
    assert (before, meanwhile, after) == ([SERVING] * 3, [NOT_SERVING] * 3, [SERVING] * 3)
    assert other.status == SERVING
