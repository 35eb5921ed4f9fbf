"""Searches run in pieces, two in turns, and are dropped when their call ends."""

from collections.abc import Callable, Generator
from typing import Any

import pytest

from charlm_server.engine.search import PrefixState, SearchJob, SearchResult
from charlm_server.errors.base import EngineFailed, InvalidRequest
from charlm_server.errors.overload import Draining
from tests.server.conftest import Bench, ids_of

Search = Callable[[PrefixState], Generator[None, None, Any]]


def job_of(bench: Bench, search: Search, **options: Any) -> SearchJob:
    return SearchJob(
        context_ids=[0, *ids_of("abc")],
        num_steps=10,
        search=search,
        output=bench.output_buffer(1 << 20),
        **options,
    )


def counting(log: list[str], name: str, num_pieces: int = 3) -> Search:
    def search(_start: PrefixState) -> Generator[None, None, str]:
        for _ in range(num_pieces):
            log.append(name)
            yield
        return name

    return search


async def answer_of(job: SearchJob) -> Any:
    parts = [part async for batch in job.output.batches(1) for part in batch]
    assert all(isinstance(part, SearchResult) for part in parts)
    return [part.value for part in parts]


async def test_a_search_starts_after_its_context_and_its_result_ends_the_call(
    bench: Bench,
) -> None:
    def search(start: PrefixState) -> Generator[None, None, tuple[int, int]]:
        yield
        return int(start.logits_1V.argmax()), int(start.state["last"][0])

    job = job_of(bench, search)
    bench.engine.begin(job)
    bench.run()

    assert await answer_of(job) == [(ids_of("d")[0], ids_of("c")[0])]
    assert not bench.engine.has_work


async def test_two_searches_take_turns_and_a_third_waits(bench: Bench) -> None:
    log: list[str] = []
    jobs = [job_of(bench, counting(log, name)) for name in "xyz"]
    for job in jobs:
        bench.engine.begin(job)
    bench.run()

    assert log == list("xyxyxyzzz")
    assert [await answer_of(job) for job in jobs] == [["x"], ["y"], ["z"]]


async def test_rows_decode_between_pieces_of_a_search(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(seconds_per_token=0.001)
    log: list[str] = []

    # A piece takes as long as a tick may last at the most, so each tick has one.
    def search(_start: PrefixState) -> Generator[None, None, None]:
        for _ in range(20):
            bench.clock.now += 0.05
            log.append("piece")
            yield

    job = job_of(bench, search)
    generation = bench.job("abc", max_new_tokens=20)
    bench.begin(generation)
    bench.engine.begin(job)
    bench.run_until(lambda: generation.is_over)

    assert 0 < len(log) < 20
    assert not job.is_over


@pytest.mark.parametrize("is_late", [False, True], ids=["cancelled", "past its deadline"])
def test_a_cancelled_or_late_search_is_dropped(bench: Bench, is_late: bool) -> None:
    log: list[str] = []
    job = job_of(bench, counting(log, "x", 10**9), deadline=bench.clock.now + 5)
    bench.engine.begin(job)
    job.is_cancelled = not is_late
    bench.clock.now += 10 if is_late else 0

    bench.run()

    assert job.is_over
    assert not log


async def test_an_error_of_a_search_ends_that_call_only(bench: Bench) -> None:
    def refusing(_start: PrefixState) -> Generator[None, None, None]:
        yield
        raise InvalidRequest("field", 1, "another")

    job, other = job_of(bench, refusing), job_of(bench, counting([], "x"))
    bench.engine.begin(job)
    bench.engine.begin(other)
    bench.run()

    with pytest.raises(InvalidRequest, match="field is 1"):
        await answer_of(job)
    assert await answer_of(other) == ["x"]


@pytest.mark.parametrize("ending", [Draining(), EngineFailed()], ids=["drained", "failed"])
async def test_draining_and_failures_end_searches(bench: Bench, ending: Exception) -> None:
    job = job_of(bench, counting([], "x"))
    bench.engine.begin(job)
    is_drained = isinstance(ending, Draining)

    events = bench.engine.stop_all() if is_drained else bench.engine.fail_all(ending)
    for event in events:
        event.deliver()

    with pytest.raises(type(ending)):
        await answer_of(job)
    assert not bench.engine.has_work
