"""Jobs are admitted or refused with a reason, and free everything when they end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from charlm_server.engine.generation import FinishReason
from charlm_server.engine.sequence import GenerationJob
from charlm_server.errors.base import EngineFailed
from charlm_server.errors.overload import DeadlineTooShort, Draining, QueueFull
from charlm_server.scheduling import scheduler as scheduling
from charlm_server.scheduling.admission import QueueLimits
from charlm_server.scheduling.scheduler import Scheduler
from tests.server.conftest import Bench, deltas_of, periodic, queue_limits, text_of

ENDLESS = 10**9


@asynccontextmanager
async def running(bench: Bench, limits: QueueLimits | None = None) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(bench.engine, limits or queue_limits())
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


def endless(bench: Bench) -> GenerationJob:
    """A job that fills a row until it is cancelled; its reader never looks."""
    return bench.job(max_new_tokens=ENDLESS, max_waiting_bytes=1 << 40)


@asynccontextmanager
async def row_taken(job: GenerationJob) -> AsyncIterator[None]:
    """From when the job has a row of its own."""
    await job.output.take(1)
    yield


@pytest.fixture
def busy_bench(make_bench: Callable[..., Bench]) -> Bench:
    """One row only, in short bursts."""
    return make_bench(batch_sizes=(1,), max_burst=4)


async def test_a_job_is_done_by_the_thread(bench: Bench) -> None:
    async with running(bench) as scheduler:
        job = bench.job("abc", max_new_tokens=50)
        async with scheduler.run(job):
            assert text_of(await deltas_of(job)) == periodic("abc", 50)


async def test_many_jobs_at_once(bench: Bench) -> None:
    async def one(scheduler: Scheduler, prompt: str) -> str:
        job = bench.job(prompt, max_new_tokens=30)
        async with scheduler.run(job):
            return text_of(await deltas_of(job))

    async with running(bench) as scheduler:
        prompts = [letter * (1 + i % 3) for i, letter in enumerate("abcdefghijklmnop")]
        texts = await asyncio.gather(*(one(scheduler, prompt) for prompt in prompts))

    assert texts == [periodic(prompt, 30) for prompt in prompts]


async def test_a_tick_makes_one_hand_over_for_all_rows(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [bench.job(max_new_tokens=64) for _ in range(4)]
    ticks: list[int] = []
    tick, loop = bench.engine.tick, asyncio.get_running_loop()
    hand_overs: list[object] = []
    call_soon_threadsafe = loop.call_soon_threadsafe

    def counting_tick(**options: bool) -> object:
        ticks.append(1)
        return tick(**options)

    def counting_hand_over(*args: object) -> object:
        hand_overs.append(args)
        return call_soon_threadsafe(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.engine, "tick", counting_tick)
    async with running(bench) as scheduler:
        monkeypatch.setattr(loop, "call_soon_threadsafe", counting_hand_over)
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(finish(scheduler, job))
        monkeypatch.undo()

    assert 0 < len(hand_overs) <= len(ticks)


async def finish(scheduler: Scheduler, job: GenerationJob) -> None:
    async with scheduler.run(job):
        await deltas_of(job)


async def test_leaving_the_block_frees_the_row(busy_bench: Bench) -> None:
    async with running(busy_bench) as scheduler:
        async with scheduler.run(first := endless(busy_bench)):
            await first.output.take(1)
        async with scheduler.run(second := busy_bench.job("a")):
            assert text_of(await deltas_of(second)) == "bcdef"

    assert busy_bench.engine.num_running == 0


async def test_a_cancelled_task_frees_the_row(busy_bench: Bench) -> None:
    async with running(busy_bench) as scheduler:
        task = asyncio.create_task(finish(scheduler, first := endless(busy_bench)))
        await first.output.take(1)
        task.cancel()
        async with scheduler.run(second := busy_bench.job("a")):
            assert text_of(await deltas_of(second)) == "bcdef"


async def test_the_queue_is_bounded_by_requests(busy_bench: Bench) -> None:
    async with running(busy_bench, queue_limits(max_requests=1)) as scheduler:
        inside = scheduler.run(first := endless(busy_bench))
        async with inside, row_taken(first), scheduler.run(busy_bench.job("a")):
            with pytest.raises(QueueFull, match="1 requests") as refusal:
                await finish(scheduler, busy_bench.job("a"))

    assert refusal.value.retry_after_s > 0


async def test_the_queue_is_bounded_by_tokens(busy_bench: Bench) -> None:
    async with running(busy_bench, queue_limits(max_tokens=100)) as scheduler:
        inside = scheduler.run(first := endless(busy_bench))
        queued = scheduler.run(busy_bench.job("a", max_new_tokens=60))
        async with inside, row_taken(first), queued:
            with pytest.raises(QueueFull, match="100 tokens"):
                await finish(scheduler, busy_bench.job("a", max_new_tokens=60))


async def test_a_large_job_alone_is_not_refused(bench: Bench) -> None:
    async with running(bench, queue_limits(max_tokens=10)) as scheduler:
        await finish(scheduler, bench.job("a", max_new_tokens=100))


async def test_a_deadline_that_has_passed_is_refused_at_once(bench: Bench) -> None:
    async with running(bench) as scheduler:
        with pytest.raises(DeadlineTooShort):
            await finish(scheduler, bench.job(deadline=bench.clock.now - 1))


async def test_a_deadline_too_short_for_the_prompt_is_refused_at_once(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(seconds_per_token=0.01)
    async with running(bench) as scheduler:
        await finish(scheduler, bench.job("abc"))
        with pytest.raises(DeadlineTooShort, match="would start in about 10"):
            await finish(scheduler, bench.job("a" * 999, deadline=bench.clock.now + 5))


async def test_a_deadline_that_passes_in_the_queue_is_refused(
    make_bench: Callable[..., Bench],
) -> None:
    """The only row is taken, and its work moves the clock past the other's deadline."""
    bench = make_bench(batch_sizes=(1,), seconds_per_token=0.01)
    async with running(bench) as scheduler, scheduler.run(first := endless(bench)):
        await first.output.take(1)
        with pytest.raises(DeadlineTooShort):
            await finish(scheduler, bench.job(deadline=bench.clock.now + 5))


async def test_a_time_limit_that_passes_in_the_queue_returns_nothing_in_time(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(batch_sizes=(1,), seconds_per_token=0.01)
    async with running(bench) as scheduler:
        inside = scheduler.run(first := endless(bench))
        late = bench.job(time_limit=bench.clock.now + 5)
        async with inside, row_taken(first), scheduler.run(late):
            deltas = await deltas_of(late)

    assert deltas[-1].finish is not None
    assert deltas[-1].finish.reason is FinishReason.TIME_LIMIT
    assert text_of(deltas) == ""


async def test_draining_refuses_new_jobs_and_waits_for_open_ones(bench: Bench) -> None:
    async with running(bench) as scheduler:
        job = bench.job("a", max_new_tokens=30)
        inside = asyncio.create_task(finish(scheduler, job))
        await asyncio.sleep(0)  # let it come in
        draining = asyncio.create_task(scheduler.drain(grace_s=60))
        await asyncio.sleep(0)  # let it begin

        with pytest.raises(Draining):
            await finish(scheduler, bench.job("a"))
        await draining
        await inside


async def test_draining_ends_slow_jobs_with_the_text_they_have(busy_bench: Bench) -> None:
    async with running(busy_bench) as scheduler:
        job, queued = endless(busy_bench), busy_bench.job("a")
        waiting = asyncio.create_task(finish(scheduler, queued))
        async with scheduler.run(job):
            await job.output.take(1)
            draining = asyncio.create_task(scheduler.drain(grace_s=0))
            deltas = await deltas_of(job)
        await draining
        await asyncio.gather(waiting, return_exceptions=True)

    assert deltas[-1].finish is not None
    assert deltas[-1].finish.reason is FinishReason.DRAINED


async def test_a_failed_tick_ends_all_jobs_and_the_engine_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(bench) as scheduler:
        bench.model.fails = True
        with pytest.raises(EngineFailed):
            await finish(scheduler, bench.job("a"))
        bench.model.fails = False
        await finish(scheduler, bench.job("a"))

    assert "the model broke" in caplog.text


async def test_a_refused_job_gets_its_error_even_if_the_engine_then_fails(
    busy_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, opened = threading.Event(), threading.Event()

    def failing(**_options: bool) -> None:
        reached.set()
        opened.wait(30)
        raise RuntimeError("broken")

    async with running(busy_bench) as scheduler, scheduler.run(first := endless(busy_bench)):
        await first.output.take(1)
        monkeypatch.setattr(busy_bench.engine, "tick", failing)
        await asyncio.to_thread(reached.wait)
        late = asyncio.create_task(finish(scheduler, busy_bench.job(deadline=101.0)))
        await asyncio.sleep(0)  # let it come in
        busy_bench.clock.now = 102.0
        opened.set()
        with pytest.raises(DeadlineTooShort):
            await asyncio.wait_for(late, 30)


async def test_a_stuck_thread_does_not_keep_the_server_from_closing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, opened = threading.Event(), threading.Event()

    def stuck(**_options: bool) -> list[object]:
        reached.set()
        opened.wait(30)
        return []

    monkeypatch.setattr(scheduling, "STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(bench.engine, "tick", stuck)
    async with running(bench) as scheduler, scheduler.run(bench.job()):
        await asyncio.to_thread(reached.wait)
        await scheduler.close()
        assert scheduler.is_alive
        opened.set()
        await asyncio.to_thread(scheduler._thread.join)
