"""Places go from who has many to who has few, never to and fro, and no bit is changed by it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_server.callers import TURNS_OF
from charlm_server.engine import Engine, EngineConfig
from charlm_server.lines import Lines
from charlm_server.scheduler import Scheduler
from charlm_server.sequence import GenerationJob
from charlm_server.shares import Shares, deal, fair_share
from charlm_server.waiting_room import QueueLimits
from tests.server.conftest import Bench, deltas_of, periodic, text_of
from tests.server.wire import checkpoint_of, vocabulary_of

PACED: dict[str, Any] = {
    "seconds_per_token": 2**-10,
    "tick_target_s": 2**-7,
}  # so that work is handed over

counts = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6)).map(Counter)


@given(counts, counts, st.integers(0, 12))
def test_a_deal_leaves_no_one_with_much_less(
    held: Counter[str], waiting: Counter[str], num_free: int
) -> None:
    dealt = deal(held, waiting, num_free)

    after, left = held + dealt.seated, waiting - dealt.seated
    after.subtract(dealt.lent)
    assert dealt.lent <= held
    assert dealt.seated <= waiting
    assert dealt.seated.total() - dealt.lent.total() == min(num_free, waiting.total())
    assert all(max(after.values(), default=0) - after[caller] < 2 for caller in left)
    assert not deal(after, left + dealt.lent, 0).lent  # and nothing goes back


def test_a_caller_keeps_its_order_and_leaves_no_empty_line() -> None:
    lines: Lines[int] = Lines()
    for number, caller in enumerate("aabab"):
        lines.add(caller, number)
    lines.add_first("b", 9)

    assert lines.take(Counter(a=2, b=1)) == [0, 1, 9]
    assert (list(lines), len(lines), lines.lengths) == ([3, 2, 4], 3, Counter(a=1, b=2))
    assert lines.take(Counter(a=1)) == [3]
    assert lines.lengths == Counter(b=2)


def test_there_is_room_for_who_has_fewer_until_both_have_half() -> None:
    begun = 0
    while Shares(Counter(a=8, b=begun), capacity=8).has_room_for("b"):
        begun += 1

    assert begun == 4
    assert not Shares(Counter(a=8), capacity=8).has_room_for("a")
    assert Shares(Counter(a=7), capacity=8).has_room_for("a")


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 40))
def test_a_fair_share_is_that_of_max_min(others: list[int], capacity: int) -> None:
    """By filling glasses: a drop at a time to whoever has least and wants more."""
    glasses, wishes = [0] * (len(others) + 1), [*others, capacity]
    for _ in range(capacity):
        thirsty = [i for i, has in enumerate(glasses) if has < wishes[i]]
        glasses[min(thirsty, key=lambda i: (glasses[i], i))] += 1

    assert fair_share(others, capacity) == glasses[-1]


async def test_a_row_is_lent_and_both_texts_are_whole(make_bench: Callable[..., Bench]) -> None:
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


async def test_a_job_of_many_outputs_lends_too(make_bench: Callable[..., Bench]) -> None:
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


async def test_who_cancels_while_its_row_is_lent_is_forgotten(
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


def endless(bench: Bench) -> GenerationJob:
    return bench.job(max_new_tokens=10**9, max_waiting_bytes=1 << 40)


def run_until(engine: Engine, is_reached: Callable[[], bool]) -> None:
    while not is_reached():
        for event in engine.tick():
            event.deliver()


async def tokens_of(job: GenerationJob) -> list[tuple[int, float]]:
    """With their log-probs."""
    told = [delta.columns for delta in await deltas_of(job) if len(delta.columns)]
    return [each for part in told for each in zip(part.ids_T, part.logprobs_T, strict=True)]


async def test_who_holds_every_row_keeps_no_one_out(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(**PACED)
    scheduler = Scheduler(bench.engine, QueueLimits(max_tokens=10**12))
    scheduler.start()

    async def hold(job: GenerationJob) -> None:
        TURNS_OF.set("a")  # of this task alone
        async with scheduler.generate(job):
            await asyncio.Event().wait()

    jobs = [endless(bench) for _ in range(4)]
    holders = [asyncio.create_task(hold(job)) for job in jobs]
    for job in jobs:
        await job.output.take(1)
    TURNS_OF.set("b")
    async with scheduler.generate(job := bench.job("x", max_new_tokens=9)):
        text = text_of(await deltas_of(job))
    for holder in holders:
        holder.cancel()
    await asyncio.gather(*holders, return_exceptions=True)
    await scheduler.close()

    assert text == periodic("x", 9)


async def test_a_long_text_lends_its_place_and_all_scores_are_whole(
    make_bench: Callable[..., Bench],
) -> None:
    """All places of the lane are taken by one caller's long texts, and jobs wait behind them."""
    bench = make_bench(**PACED, max_scoring_rows=2, max_scoring_chunk=64)
    text = periodic("", 5000)
    long = bench.scoring_job(*[text[:length] for length in (5000, 4000, 3000)], caller="a")
    bench.engine.begin_scoring(long)
    bench.run_until(lambda: long.is_answered)
    short = bench.scoring_job("abcd", caller="b")

    bench.engine.begin_scoring(short)
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


@pytest.mark.parametrize("family", ["gru", "lstm", "transformer"])
async def test_who_lends_a_row_goes_on_with_the_same_bits(
    family: str, make_bench: Callable[..., Bench]
) -> None:
    """On the kernels: texts and their log-probs are those of an engine that has one alone."""
    model = checkpoint_of(family, vocabulary_of("char")).model
    bench = make_bench()  # for its jobs

    def engine() -> Engine:
        ticking = count(0.0, 0.002).__next__
        config = EngineConfig(batch_sizes=(1, 2, 4), max_burst=4)
        token_bytes = [b"x"] * model.config.vocab_size
        return Engine(model, token_bytes, config, clock=ticking, work_clock=ticking)

    def job(seed: int, caller: str, length: int) -> GenerationJob:
        return bench.job(
            "abcd"[:seed], seed=seed, caller=caller, max_new_tokens=length, ignore_end_of_text=True
        )

    async def alone(*asked: Any) -> list[tuple[int, float]]:
        alone = engine()
        alone.begin_generation(it := job(*asked))
        run_until(alone, lambda: it.is_closed)
        return await tokens_of(it)

    asked = [*((seed, "a", 90) for seed in range(4)), *((seed, "b", 9) for seed in range(2))]
    jobs, together = [job(*each) for each in asked], engine()
    for each in jobs:
        together.begin_generation(each)
        run_until(together, lambda: each.prefilled_at > 0)  # noqa: B023
    run_until(together, lambda: jobs[4].is_closed and jobs[5].is_closed)
    assert not any(each.is_closed for each in jobs[:4])
    run_until(together, lambda: not together.has_work)

    assert [await tokens_of(each) for each in jobs] == [await alone(*each) for each in asked]
