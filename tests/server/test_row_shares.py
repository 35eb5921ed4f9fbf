"""Rows go from who has many to who has few, never to and fro, and no text is changed by it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from charlm_server.callers import TURNS_OF
from charlm_server.row_shares import RowShares, deal
from charlm_server.scheduler import Scheduler
from charlm_server.sequence import GenerationJob
from charlm_server.waiting_room import QueueLimits
from tests.server.conftest import Bench, deltas_of, periodic, text_of

PACED: dict[str, Any] = {
    "seconds_per_token": 2**-10,
    "tick_target_s": 2**-7,
}  # so that work is handed over

callers = st.sampled_from("abcd")


@given(st.lists(callers, max_size=12), st.lists(callers, max_size=12), st.integers(0, 12))
def test_a_deal_leaves_no_one_with_much_less(
    seated: list[str], ready: list[str], num_free: int
) -> None:
    before = Counter(seated)

    dealt = deal(before, ready, num_free)

    joined = Counter(ready[place] for place in dealt.newcomers)
    after = before + joined
    after.subtract(dealt.lent)
    left = Counter(ready) - joined
    assert all(dealt.lent[caller] <= before[caller] for caller in dealt.lent)
    assert len(dealt.newcomers) - dealt.lent.total() == min(num_free, len(ready))
    assert all(max(after.values(), default=0) - after[caller] < 2 for caller in left)
    assert not deal(after, [*left.elements(), *dealt.lent.elements()], 0).lent


def test_those_of_one_caller_keep_their_order() -> None:
    assert deal(Counter(), "aaaa", 3).newcomers == [0, 1, 2]
    assert deal(Counter("a"), "aab", 2).newcomers == [2, 0]


def test_there_is_room_for_who_has_fewer_until_both_have_half() -> None:
    seated = Counter(a=8)

    begun = 0
    while RowShares(seated, Counter(a=8, b=begun), capacity=8).has_room_for("b"):
        begun += 1

    assert begun == 4
    assert not RowShares(seated, Counter(a=8), capacity=8).has_room_for("a")
    assert RowShares(Counter(a=7), Counter(a=7), capacity=8).has_room_for("a")


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
