"""Callers take turns: none starves, none saves turns, and each keeps its order."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_server.calls.call import Call
from charlm_server.engine.job import Job, JobEngine
from charlm_server.engine.sequence import GenerationJob
from charlm_server.errors.overload import QueueFull, ShareTaken
from charlm_server.scheduling.admission import QueueLimits
from charlm_server.scheduling.fair_queue import FairQueue, QueuedJob
from charlm_server.scheduling.scheduler import Scheduler
from tests.server.conftest import Bench, deltas_of, queue_limits


@dataclass(kw_only=True, eq=False)
class SizedJob(Job):
    """So many tokens, of which some are used."""

    output: Any = None
    size: int = 1
    used: int | None = None

    def begin(self, engine: JobEngine) -> None:
        """Nothing is read."""

    @property
    def num_tokens(self) -> int:
        return self.size

    @property
    def num_used_tokens(self) -> int:
        return self.size if self.used is None else self.used

    @property
    def num_rows(self) -> int:
        return 1


@dataclass
class Line:
    """A fair queue, and the callers whose jobs began."""

    queue: FairQueue = field(default_factory=FairQueue)
    begun: list[str] = field(default_factory=list)

    def add(self, caller: str, size: int = 1, *, used: int | None = None) -> QueuedJob:
        waiting = QueuedJob(SizedJob(size=size, used=used, caller=caller))
        self.queue.add(waiting)
        return waiting

    def begin(self, num: int = 1) -> str:
        """The callers of the next ones."""
        self.begun += [self.queue.pop(self.queue.callers[0]).caller for _ in range(num)]
        return "".join(self.begun[-num:])


def test_two_callers_alternate_and_a_single_one_does_not_wait() -> None:
    line = Line()
    for caller in "aaabb":
        line.add(caller)

    assert line.begin(5) == "ababa"


def test_a_caller_with_a_hundred_jobs_delays_another_by_one() -> None:
    line = Line()
    for _ in range(100):
        line.add("a", 1_000_000)
    line.begin(3)
    num_ahead = line.queue.num_ahead("b")
    line.add("b", 10)

    assert num_ahead == 1
    assert line.begin() == "b"


def test_jobs_of_one_caller_keep_their_order() -> None:
    queue = Line().queue
    jobs = [QueuedJob(SizedJob(size=size)) for size in (5, 1, 3)]
    for waiting in jobs:
        queue.add(waiting)

    assert [queue.pop("") for _ in jobs] == jobs


def test_tokens_of_waiting_jobs_are_counted() -> None:
    queue = Line().queue
    for size in (5, 1, 3, 7):
        queue.add(QueuedJob(SizedJob(size=size)))

    queue.take(lambda job: job.num_tokens == 3)
    queue.pop("")

    assert queue.num_tokens == 1 + 7


def test_a_caller_with_smaller_jobs_has_more_turns() -> None:
    line = Line()
    for _ in range(8):
        line.add("a", 10)
        line.add("b", 30)

    assert line.begin(8).count("a") == 6


def test_unused_turns_are_not_saved() -> None:
    line = Line()
    for _ in range(20):
        line.add("a")
    line.add("b")
    line.begin(12)
    for _ in range(8):
        line.add("b")

    assert line.begin(6).count("b") == 3


def test_unused_tokens_are_refunded() -> None:
    line = Line()
    first = line.add("a", 1000, used=1)
    for _ in range(4):
        line.add("a", 1000)
        line.add("b", 100)
    line.begin()
    line.queue.settle(first)

    assert line.begin(2).count("a") == 1


def test_a_job_that_leaves_the_queue_is_not_charged() -> None:
    line = Line()
    for caller in "aaab":
        line.add(caller, 7)
    out = line.queue.take(lambda job: job is next(iter(line.queue)).job)
    line.queue.settle(out[0])

    assert (out[0].caller, len(line.queue)) == ("a", 3)
    assert line.begin(3) == "aba"


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=30), min_size=2, max_size=5))
def test_while_two_wait_their_shares_differ_by_one_job_each(sizes: list[list[int]]) -> None:
    """Theorem 1 of Goyal, Vin & Cheng: |W_f - W_g| <= the largest job of f and that of g."""
    queue = FairQueue()
    for caller, jobs in enumerate(sizes):
        for size in jobs:
            queue.add(QueuedJob(SizedJob(size=size, caller=str(caller))))

    served = [0] * len(sizes)
    left = [len(jobs) for jobs in sizes]
    while queue:
        assert queue.num_tokens == sum(waiting.job.num_tokens for waiting in queue)
        waiting = queue.pop(queue.callers[0])
        caller = int(waiting.caller)
        served[caller] += waiting.job.num_tokens
        left[caller] -= 1
        for other in range(len(sizes)):
            if left[caller] and left[other]:
                bound = max(sizes[caller]) + max(sizes[other])
                assert abs(served[caller] - served[other]) <= bound


def endless(bench: Bench) -> GenerationJob:
    return bench.job(max_new_tokens=10**9, max_waiting_bytes=1 << 40)


def a_call_of(caller: str) -> Call:
    return Call(method="m", request_id="1", caller=caller)


async def test_a_busy_caller_does_not_starve_another(make_bench: Callable[..., Bench]) -> None:
    """On a real scheduler with one row: a hundred jobs of one, then one of another."""
    bench = make_bench(batch_sizes=(1,))
    scheduler = Scheduler(bench.engine, queue_limits())
    scheduler.start()
    ended: list[str] = []

    async def ask(caller: str) -> None:
        async with scheduler.run(job := bench.job(max_new_tokens=20), a_call_of(caller)):
            await deltas_of(job)
        ended.append(caller)

    async with scheduler.run(running := endless(bench)):
        await running.output.take(1)
        busy = [asyncio.create_task(ask("a")) for _ in range(100)]
        other = asyncio.create_task(ask("b"))
        await asyncio.sleep(0)  # all of them are in the queue
    await other
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    await scheduler.close()

    assert ended.index("b") <= 1


async def test_one_caller_cannot_fill_the_queue(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(batch_sizes=(1,), max_burst=4)
    share = QueueLimits(max_requests=2, max_tokens=1000)
    limits = queue_limits(max_requests=4, per_caller=share)
    scheduler = Scheduler(bench.engine, limits)
    scheduler.start()

    async with AsyncExitStack() as inside:
        await inside.enter_async_context(scheduler.run(running := endless(bench)))
        await running.output.take(1)
        for caller in "aab":
            call = a_call_of(caller)
            await inside.enter_async_context(scheduler.run(bench.job(max_new_tokens=400), call))
            with pytest.raises(ShareTaken, match="for one caller is reached") as refusal:
                await inside.enter_async_context(scheduler.run(bench.job(max_new_tokens=800), call))
            assert refusal.value.retry_after_s > 0
        await inside.enter_async_context(scheduler.run(bench.job(max_new_tokens=400), call))
        with pytest.raises(QueueFull, match="The queue is full"):
            await inside.enter_async_context(scheduler.run(bench.job(), a_call_of("c")))
    await scheduler.close()
