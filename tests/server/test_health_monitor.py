"""The health service reports an engine that makes no progress, and its recovery."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from charlm.v1 import generation_pb2 as gen
from charlm_server.scheduling.heartbeat import Heartbeat
from tests.server.conftest import Clock
from tests.server.gate import Gate
from tests.server.wire import Wire, load, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
STUCK, WELL = "models/lstm-char", "models/gru-byte"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(("lstm", "char"), ("gru", "byte")) as running:
        yield running


async def test_a_stuck_engine_and_its_recovery_are_reported(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, gate, scheduler = Clock(), Gate(), wire.models.get(STUCK).scheduler
    monkeypatch.setattr(scheduler, "heartbeat", Heartbeat(clock))
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
    wire.app.monitor.check()
    in_time = await stub.Check(health_pb2.HealthCheckRequest(service=STUCK))
    clock.now += 2
    wire.app.monitor.check()
    meanwhile = [(await watch.read()).status for watch in watches]
    other = await stub.Check(health_pb2.HealthCheckRequest(service=WELL))
    gate.opened.set()
    await call
    await scheduler.nothing_open()
    wire.app.monitor.check()
    after = [(await watch.read()).status for watch in watches]

    assert in_time.status == SERVING
    assert (before, meanwhile, after) == ([SERVING] * 3, [NOT_SERVING] * 3, [SERVING] * 3)
    assert other.status == SERVING


class Case:
    """One model whose engine misbehaves, a clock of its own, and its watchers."""

    def __init__(self, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wire, self.clock = wire, Clock()
        self.scheduler = wire.models.get(STUCK).scheduler
        self.engine = self.scheduler._engine
        monkeypatch.setattr(self.scheduler, "heartbeat", Heartbeat(self.clock))
        self._patch = monkeypatch
        self._stub = health_pb2_grpc.HealthStub(wire.channel)
        names = (STUCK, "charlm.v1.GenerationService", "")
        self._watches = [self._stub.Watch(health_pb2.HealthCheckRequest(service=n)) for n in names]

    def tick_is(self, tick: Callable[..., Any]) -> None:
        self._patch.setattr(self.engine, "tick", tick)

    async def ask(self) -> str:
        """The outcome of a call."""
        request = gen.GenerateRequest(model=STUCK, context={"text": "a"})
        try:
            await self.wire.generation.Generate(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"

    async def told(self) -> list[int]:
        """The next status that each watcher receives."""
        return [(await asyncio.wait_for(watch.read(), 30)).status for watch in self._watches]

    async def look(self, *, after_s: float) -> None:
        """As the monitor does after so many seconds, probes included."""
        self.clock.now += after_s
        self.wire.app.monitor.check()
        await asyncio.gather(*self.wire.app.monitor.probes)


@pytest.fixture
def case(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(wire, monkeypatch)


def failing(**_options: Any) -> Any:
    raise RuntimeError("broken")


async def test_an_engine_that_fails_at_every_step_is_reported(case: Case) -> None:
    """Recovery is noticed without calls, because the server probes the engine."""
    tick = case.engine.tick
    assert await case.told() == [SERVING] * 3
    case.tick_is(failing)
    assert await case.ask() == "INTERNAL"
    await case.look(after_s=29)
    await case.look(after_s=2)
    assert await case.told() == [NOT_SERVING] * 3
    case.tick_is(tick)
    await case.look(after_s=1)  # a probe succeeds
    await case.look(after_s=1)
    assert await case.told() == [SERVING] * 3


async def test_one_failed_call_does_not_make_an_engine_unhealthy(case: Case) -> None:
    tick = case.engine.tick
    case.tick_is(failing)
    assert await case.ask() == "INTERNAL"
    case.tick_is(tick)
    await case.look(after_s=8)
    await case.look(after_s=30)
    assert await case.told() == [SERVING] * 3


async def test_an_engine_without_progress_is_reported(case: Case) -> None:
    """Its thread loops without a decode step."""
    tick, idle = case.engine.tick, threading.Event()

    def idling(**_options: Any) -> list[Any]:
        idle.set()
        return []

    assert await case.told() == [SERVING] * 3
    case.tick_is(idling)
    call = asyncio.ensure_future(case.ask())
    await asyncio.to_thread(idle.wait)
    await case.look(after_s=31)
    assert await case.told() == [NOT_SERVING] * 3
    case.tick_is(tick)
    assert await call == "OK"


async def test_a_dead_engine_is_reported_and_its_calls_fail_at_once(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    def dying(**_options: Any) -> Any:
        raise SystemExit

    assert await case.told() == [SERVING] * 3
    case.tick_is(dying)
    running = await case.ask()
    await asyncio.to_thread(case.scheduler._thread.join)
    later = await case.ask()
    await case.look(after_s=0)

    assert (running, later) == ("UNAVAILABLE", "UNAVAILABLE")
    assert await case.told() == [NOT_SERVING] * 3
    assert "the engine's thread has died" in caplog.text


async def test_a_dead_engine_of_replaced_weights_is_reported(case: Case) -> None:
    [replaced] = load(("lstm", "char"))
    replaced.scheduler.start()
    await replaced.scheduler.close()
    assert await case.told() == [SERVING] * 3
    case.wire.models.replaced.append(replaced)
    await case.look(after_s=0)
    assert await case.told() == [NOT_SERVING] * 3
    case.wire.models.replaced.clear()
