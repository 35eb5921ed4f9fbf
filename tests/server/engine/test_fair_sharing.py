"""Rows are lent by callers with many to callers with few, never back and forth, bits unchanged."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, count
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm_model.language_model import LanguageModel
from charlm_model.snapshot import Snapshot
from charlm_server.engine.caller_queues import CallerQueues
from charlm_server.engine.engine import Engine, EngineConfig
from charlm_server.engine.fair_sharing import FairShares, assign_rows, fair_share
from charlm_server.engine.sequence import GenerationJob
from charlm_server.errors.overload import DeadlineTooShort
from charlm_server.scheduling.admission import AdmissionQueue
from charlm_server.scheduling.fair_queue import QueuedJob
from charlm_server.scheduling.scheduler import Scheduler
from tests.server.conftest import Bench, deltas_of, periodic, queue_limits, text_of
from tests.server.scheduling.test_fair_queue import SizedJob
from tests.server.wire import checkpoint_of, vocabulary_of

PACED: dict[str, Any] = {
    "seconds_per_token": 2**-10,
    "tick_target_s": 2**-7,
}  # so that work is handed over

counts = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6)).map(Counter)


@given(counts, counts, st.integers(0, 12))
def test_assigned_rows_differ_by_at_most_one_between_callers_that_wait(
    held: Counter[str], waiting: Counter[str], num_free: int
) -> None:
    assigned = assign_rows(held, waiting, num_free)

    after, left = held + assigned.granted, waiting - assigned.granted
    after.subtract(assigned.lent)
    assert assigned.lent <= held
    assert assigned.granted <= waiting
    assert assigned.granted.total() - assigned.lent.total() == min(num_free, waiting.total())
    assert all(max(after.values(), default=0) - after[caller] < 2 for caller in left)
    assert not assign_rows(after, left + assigned.lent, 0).lent  # and nothing goes back


def test_a_served_caller_goes_behind_and_keeps_its_order() -> None:
    lines: CallerQueues[int] = CallerQueues(lambda number: False)
    for number, caller in enumerate("aabab"):
        lines.add(caller, number)
    lines.add_first("b", 9)

    assert lines.take(Counter(a=2, b=1)) == [0, 1, 9]
    assert (list(lines), len(lines), lines.lengths()) == ([3, 2, 4], 3, Counter(a=1, b=2))
    assert lines.take(Counter(a=1)) == [3]
    lines.add("a", 5)
    assert list(lines.lengths()) == ["b", "a"]


def test_items_that_gave_up_are_skipped() -> None:
    gone = {0, 3}
    lines: CallerQueues[int] = CallerQueues(gone.__contains__)
    for number, caller in enumerate("aababa"):
        lines.add(caller, number)

    assert lines.lengths() == Counter(a=3, b=2)  # 3 stands in the midst
    assert lines.take(Counter(a=2)) == [1, 5]
    gone.update([2, 4])
    assert not lines.lengths()
    assert len(lines) == 0


def test_new_caller_is_admitted_up_to_its_fair_share() -> None:
    begun = 0
    while FairShares(Counter(a=8, b=begun), capacity=8).has_room_for("b"):
        begun += 1

    assert begun == 4
    assert not FairShares(Counter(a=8), capacity=8).has_room_for("a")
    assert FairShares(Counter(a=7), capacity=8).has_room_for("a")


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 40))
def test_fair_share_is_max_min_fair(others: list[int], capacity: int) -> None:
    """The oracle: one row at a time to the caller with the fewest that wants more."""
    glasses, wishes = [0] * (len(others) + 1), [*others, capacity]
    for _ in range(capacity):
        thirsty = [i for i, has in enumerate(glasses) if has < wishes[i]]
        glasses[min(thirsty, key=lambda i: (glasses[i], i))] += 1

    assert fair_share(others, capacity) == glasses[-1]


async def test_lending_a_row_changes_neither_text(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(**PACED)
    long = [bench.job("abcd"[:n], max_new_tokens=200, caller="a") for n in range(4)]
    bench.begin(*long)
    bench.run_until(lambda: bench.engine.num_running == 4)
    short = bench.job("xyz", max_new_tokens=20, caller="b")

    bench.begin(short)
    bench.run_until(lambda: short.is_closed)
    assert not any(job.is_closed for job in long)
    bench.run()

    assert text_of(await deltas_of(short)) == periodic("xyz", 20)
    for n, job in enumerate(long):
        assert text_of(await deltas_of(job)) == periodic("abcd"[:n], 200)


async def test_a_job_of_many_outputs_lends_rows(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(**PACED)
    many = bench.job("a", max_new_tokens=50, num_outputs=12, caller="a")
    bench.begin(many)
    bench.run_until(lambda: bench.engine.num_running == 4)
    short = bench.job("xyz", max_new_tokens=8, caller="b")

    bench.begin(short)
    bench.run_until(lambda: short.is_closed)
    assert not many.is_closed
    bench.run()

    deltas = await deltas_of(many)
    assert [text_of(deltas, index) for index in range(12)] == [periodic("a", 50)] * 12


async def test_a_job_cancelled_while_its_row_is_lent_is_dropped(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(**PACED, batch_sizes=(1, 2))
    long = [bench.job(max_new_tokens=10**6, caller="a") for _ in range(2)]
    bench.begin(*long)
    bench.run_until(lambda: bench.engine.num_running == 2)
    bench.begin(other := bench.job(max_new_tokens=10**6, caller="b"))
    bench.run_until(lambda: other.prefilled_at > 0)
    bench.tick()

    for job in [*long, other]:
        job.is_cancelled = True
    bench.tick()

    assert not bench.engine.has_work


def endless(bench: Bench, caller: str) -> GenerationJob:
    return bench.job(max_new_tokens=10**9, max_waiting_bytes=1 << 40, caller=caller)


def run_until(engine: Engine, is_reached: Callable[[], bool]) -> None:
    while not is_reached():
        for event in engine.tick():
            event.deliver()


async def tokens_of(job: GenerationJob) -> list[tuple[int, float]]:
    """With their log-probs."""
    told = [delta.columns for delta in await deltas_of(job) if len(delta.columns)]
    return [each for part in told for each in zip(part.ids_T, part.logprobs_T, strict=True)]


async def test_a_caller_with_all_rows_does_not_block_another(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(**PACED)
    scheduler = Scheduler(bench.engine, queue_limits(max_tokens=10**12))
    scheduler.start()

    async def hold(job: GenerationJob) -> None:
        async with scheduler.run(job):
            await asyncio.Event().wait()

    jobs = [endless(bench, caller="a") for _ in range(4)]
    holders = [asyncio.create_task(hold(job)) for job in jobs]
    for job in jobs:
        await job.output.take(1)
    async with scheduler.run(job := bench.job("x", max_new_tokens=9, caller="b")):
        text = text_of(await deltas_of(job))
    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)
    await scheduler.close()

    assert text == periodic("x", 9)


async def test_a_long_text_lends_its_row_and_all_scores_are_complete(
    make_bench: Callable[..., Bench],
) -> None:
    """All places of the lane are taken by one caller's long texts, and jobs wait behind them."""
    bench = make_bench(**PACED, max_scoring_rows=2, max_scoring_chunk=64)
    text = periodic("", 5000)
    long = bench.scoring_job(*[text[:length] for length in (5000, 4000, 3000)], caller="a")
    bench.engine.begin(long)
    bench.run_until(lambda: long.is_answered)
    short = bench.scoring_job("abcd", caller="b")

    bench.engine.begin(short)
    bench.run_until(lambda: short.is_closed)
    assert not long.is_closed
    bench.run()

    parts = [part async for batch in long.output.batches(1 << 30) for part in batch]
    for item, length in enumerate((5000, 4000, 3000)):
        own = [part for part in parts if part.item == item]
        assert [part.position for part in own] == list(
            accumulate([0, *(len(part.columns) for part in own[:-1])])
        )
        assert sum(len(part.columns) for part in own) == length
        assert all((np.abs(part.columns.logprobs_T) < 1e-6).all() for part in own)


@dataclass(frozen=True, slots=True)
class Ask:
    """A generation job, described so that it can be asked again."""

    caller: str
    prompt: str
    seed: int
    length: int
    has_snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Kernels:
    """Engines over a real model, with few rows, on a clock that moves by itself."""

    model: LanguageModel
    bench: Bench  # for its jobs

    def engine(self) -> Engine:
        ticking = count(0.0, 0.002).__next__
        config = EngineConfig(batch_sizes=(1, 2, 4), max_burst=4, max_prefill_rows=2, max_chunk=4)
        token_bytes = [b"x"] * self.model.config.vocab_size
        return Engine(self.model, token_bytes, config, clock=ticking, work_clock=ticking)

    def job(self, ask: Ask) -> GenerationJob:
        return self.bench.job(
            ask.prompt,
            seed=ask.seed,
            caller=ask.caller,
            max_new_tokens=ask.length,
            ignore_end_of_text=True,
            snapshot=self.snapshot if ask.has_snapshot else None,
        )

    @property
    def snapshot(self) -> Snapshot:
        logits_BTV, state = self.model.advance(
            torch.tensor([[0, 3, 1]]), self.model.initial_state(1)
        )
        return Snapshot(state, logits_BTV[:, -1].clone(), 2)

    async def alone(self, ask: Ask) -> list[tuple[int, float]]:
        engine = self.engine()
        engine.begin(job := self.job(ask))
        run_until(engine, lambda: job.is_closed)
        return await tokens_of(job)


@pytest.fixture(params=["gru", "lstm", "transformer"])
def kernels(request: pytest.FixtureRequest, make_bench: Callable[..., Bench]) -> Kernels:
    return Kernels(checkpoint_of(request.param, vocabulary_of("char")).model, make_bench())


async def test_a_sequence_that_lent_its_row_has_the_same_bits(kernels: Kernels) -> None:
    asked = [*(Ask("a", "abcd"[:n], n, 90) for n in range(4)), Ask("b", "b", 5, 9)]
    jobs, engine = [kernels.job(ask) for ask in asked], kernels.engine()

    for job in jobs:
        engine.begin(job)
        run_until(engine, lambda: job.prefilled_at > 0)  # noqa: B023
    run_until(engine, lambda: jobs[-1].is_closed)
    assert not any(job.is_closed for job in jobs[:-1])
    run_until(engine, lambda: not engine.has_work)

    assert [await tokens_of(job) for job in jobs] == [await kernels.alone(ask) for ask in asked]


async def test_a_sequence_that_waits_for_a_row_keeps_its_state(kernels: Kernels) -> None:
    """Others are read meanwhile, where its prompt was."""
    asked = [Ask("a", "abcd"[n % 4] * (n + 1), n, 30) for n in range(9)]
    jobs, engine = [kernels.job(ask) for ask in asked], kernels.engine()

    for job in jobs:
        engine.begin(job)
    run_until(engine, lambda: all(job.prefilled_at > 0 for job in jobs))
    assert not any(job.is_closed for job in jobs)
    run_until(engine, lambda: not engine.has_work)

    assert [await tokens_of(job) for job in jobs] == [await kernels.alone(ask) for ask in asked]


async def test_a_prompt_that_lent_its_row_has_the_same_bits(kernels: Kernels) -> None:
    """Some of the lent sequences began with a snapshot."""
    long = [Ask("a", "abcd" * 30, n, 20, has_snapshot=n % 2 > 0) for n in range(4)]
    asked = [*long, Ask("b", "dcba", 5, 9, has_snapshot=True)]
    jobs, engine = [kernels.job(ask) for ask in asked], kernels.engine()

    for job in jobs[:-1]:
        engine.begin(job)
    num_ticks = count()
    run_until(engine, lambda: next(num_ticks) == 3)
    engine.begin(jobs[-1])
    run_until(engine, lambda: jobs[-1].prefilled_at > 0)
    assert not any(job.prefilled_at for job in jobs[:-1])
    run_until(engine, lambda: not engine.has_work)

    assert [await tokens_of(job) for job in jobs] == [await kernels.alone(ask) for ask in asked]


async def test_a_single_text_waits_at_most_one_turn_of_each_caller(
    make_bench: Callable[..., Bench],
) -> None:
    """A served caller goes behind the others, also if all have equally many rows."""
    bench = make_bench(**PACED, max_scoring_rows=2)
    for caller in "ab":
        bench.engine.begin(bench.scoring_job(*["abcd"] * 100, caller=caller))
    bench.tick()
    bench.engine.begin(single := bench.scoring_job("abcd", caller="c"))

    num_ticks = 0
    while not single.is_closed:
        bench.tick()
        num_ticks += 1

    assert num_ticks < 10


async def test_cancelled_texts_take_no_rows(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(**PACED)
    bench.engine.begin(many := bench.scoring_job(*["abcd"] * 4000))
    bench.tick()
    bench.engine.begin(single := bench.scoring_job("abcd"))

    many.is_cancelled = True
    bench.tick()
    bench.tick()

    assert single.is_closed


def test_a_deadline_is_not_too_short_where_a_row_will_be_lent() -> None:
    """All rows are one caller's, more of its jobs wait, and each waited for a minute lately."""
    room = AdmissionQueue(queue_limits())
    queue = room.generations
    for _ in range(4):
        room.admit(QueuedJob(SizedJob(caller="a")), queue, work_s=0.0)
    for now in (60.0, 120.0):
        room.next(queue, "a", now)

    def hurried(caller: str) -> QueuedJob:
        job = SizedJob(caller=caller, submitted_at=130.0, deadline=150.0)
        return QueuedJob(job)

    queue.shares = FairShares(Counter(a=4), 4)
    with pytest.raises(DeadlineTooShort):
        room.admit(hurried("a"), queue, work_s=0.0)
    room.admit(hurried("b"), queue, work_s=0.0)
    with pytest.raises(DeadlineTooShort):  # its second has to wait
        room.admit(hurried("b"), queue, work_s=0.0)


def test_a_cancelled_row_stays_until_its_backlog_is_taken(
    make_bench: Callable[..., Bench],
) -> None:
    """The loop cancels at any moment; rows may not move before their backlog is taken."""
    bench = make_bench(**PACED)
    jobs = [bench.job(max_new_tokens=10**6) for _ in range(2)]
    bench.begin(*jobs)
    bench.run_until(lambda: bench.engine.num_running == 2)
    batch = bench.engine._batch
    bench.run_until(lambda: bool(batch.backlog))

    jobs[0].is_cancelled = True
    bench.engine.placement.drop_over()
    assert bench.engine.num_running == 2
    bench.tick()

    assert bench.engine.num_running == 1


@pytest.mark.parametrize("ends", ["stop_all", "fail_all", "time_limit"])
async def test_a_job_whose_row_is_lent_ends_with_the_engine(
    ends: str, make_bench: Callable[..., Bench]
) -> None:
    bench = make_bench(**PACED, batch_sizes=(1, 2))
    long = [bench.job(max_new_tokens=10**6, caller="a", time_limit=150.0) for _ in range(2)]
    bench.begin(*long)
    bench.run_until(lambda: bench.engine.num_running == 2)
    bench.begin(other := bench.job(max_new_tokens=10**6, caller="b"))
    bench.run_until(lambda: other.is_answered)

    if ends == "time_limit":
        bench.clock.now = 150.0
        events = bench.engine.tick()
    elif ends == "stop_all":
        events = bench.engine.stop_all()
    else:
        events = bench.engine.fail_all(RuntimeError("broken"))

    closed = {event.output for event in events if event.closes}
    assert closed >= {job.output for job in long}
    assert bench.engine.num_running <= 1
