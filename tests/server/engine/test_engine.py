"""The engine continues prompts exactly, divides its time, and frees the rows of ended calls."""

from collections.abc import Callable

import pytest

from charlm_server.engine.generation import Delta, FinishReason
from charlm_server.engine.scoring import NextDistributionJob
from charlm_server.engine.sequence import GenerationJob, SequenceStatus
from charlm_server.engine.token_columns import Returns
from charlm_server.errors.overload import DeadlineTooShort
from tests.server.conftest import Bench, deltas_of, ids_of, periodic, text_of

MakeBench = Callable[..., Bench]
STEP_S = 2**-10


@pytest.fixture
def paced(make_bench: MakeBench) -> Bench:
    """Where steps take time: a tick's target is that of 40, and so a burst has 16."""
    return make_bench(seconds_per_token=STEP_S, tick_target_s=40 * STEP_S)


def finish_of(deltas: list[Delta]) -> FinishReason:
    finish = deltas[-1].finish
    assert finish is not None
    return finish.reason


async def test_a_prompt_is_continued(bench: Bench) -> None:
    job = bench.job("abc", max_new_tokens=5)
    bench.begin(job)

    bench.run()

    deltas = await deltas_of(job)
    assert text_of(deltas) == "defgh"
    assert finish_of(deltas) is FinishReason.LENGTH


async def test_the_last_delta_alone_has_a_finish(bench: Bench) -> None:
    job = bench.job(max_new_tokens=9)
    bench.begin(job)

    bench.run()

    assert not any(delta.finish for delta in (await deltas_of(job))[:-1])


@pytest.mark.parametrize("num_jobs", [1, 3, 4, 11])
async def test_joining_and_leaving_rows_change_nothing(bench: Bench, num_jobs: int) -> None:
    """More jobs than rows, of all lengths, arriving one tick after the other."""
    jobs = [bench.job("abcdefghijk"[: i % 5], max_new_tokens=1 + 3 * i) for i in range(num_jobs)]

    for job in jobs:
        bench.begin(job)
        bench.tick()
    bench.run()

    for i, job in enumerate(jobs):
        assert text_of(await deltas_of(job)) == periodic("abcdefghijk"[: i % 5], 1 + 3 * i)


async def test_the_first_token_is_handed_over_in_the_tick_that_reads_the_prompt(
    bench: Bench,
) -> None:
    job = bench.job("a", max_new_tokens=50)
    bench.begin(job)
    bench.tick()  # a first piece of work is one token long: nothing was measured yet
    bench.tick()

    first = await job.output.take(1 << 20)

    assert text_of(first)[:1] == "b"


async def test_first_tokens_are_handed_over_at_once_and_later_ones_together(
    paced: Bench,
) -> None:
    first, late = paced.job(max_new_tokens=1000), paced.job("abc", max_new_tokens=1000)
    paced.begin(first)
    paced.run_until(lambda: paced.engine.num_running == 1)
    paced.run_until(lambda: paced.tick_lengths() == 16)  # it was measured what steps take
    paced.run_until(lambda: bool(paced.engine.tick()))
    assert [len(paced.engine.tick()) for _ in range(3)] == [0, 0, 1]
    paced.begin(late)

    [event] = paced.engine.tick()

    assert event.output is late.output
    assert event.is_first
    assert [len(paced.engine.tick()) for _ in range(2)] == [0, 2]


@pytest.mark.parametrize(("steps_per_tick", "num_steps"), [(4, 1), (40, 1 + 8)])
async def test_a_first_token_waits_for_one_step_only(
    make_bench: MakeBench, steps_per_tick: int, num_steps: int
) -> None:
    bench = make_bench(seconds_per_token=STEP_S, tick_target_s=steps_per_tick * STEP_S)
    bench.begin(bench.job(max_new_tokens=1000))
    bench.run_until(lambda: bench.engine.num_steps > 100)
    late = bench.job(max_new_tokens=1000)
    bench.begin(late)
    before = bench.engine.num_steps

    events = bench.engine.tick()

    assert late.output in [event.output for event in events]
    assert bench.engine.num_steps - before == num_steps


async def test_tokens_are_collected_for_as_long_as_asked(paced: Bench) -> None:
    paced.begin(paced.job(max_new_tokens=1000))
    for _ in range(20):
        paced.tick()
    paced.run_until(lambda: bool(paced.engine.tick()))

    assert [len(paced.engine.tick(kept_s=90 * STEP_S)) for _ in range(6)] == [0, 0, 0, 0, 0, 1]


async def test_a_complete_row_is_handed_over_early(paced: Bench) -> None:
    short, long = paced.job(max_new_tokens=30), paced.job(max_new_tokens=10**6)
    paced.begin(short, long)

    while not short.is_closed:
        paced.engine.tick(kept_s=1e9)

    assert not long.is_closed


async def test_collected_tokens_are_handed_over_before_time_runs_out(paced: Bench) -> None:
    job = paced.job(max_new_tokens=10**6, time_limit=200.0)
    paced.begin(job)
    paced.run_until(lambda: paced.engine.num_sampled_tokens > 100)
    paced.run_until(lambda: not paced.engine.tick())
    num_sampled = paced.engine.num_sampled_tokens

    paced.clock.now = 200.0
    events = paced.engine.tick()

    assert events[-1].closes
    assert job.sequences[0].num_sampled == num_sampled


async def test_tokens_past_the_end_are_discarded(make_bench: MakeBench) -> None:
    bench = make_bench(seconds_per_token=0.0001)
    short, long = bench.job(max_new_tokens=37), bench.job(max_new_tokens=200)
    bench.begin(short, long)

    bench.run()

    assert text_of(await deltas_of(short)) == periodic("", 37)
    assert text_of(await deltas_of(long)) == periodic("", 200)


@pytest.mark.parametrize("max_burst", [1, 3, 64])
async def test_a_stop_sequence_ends_it_and_is_never_emitted(
    make_bench: MakeBench, max_burst: int
) -> None:
    bench = make_bench(max_burst=max_burst)
    job = bench.job("a", max_new_tokens=20, stops=["hi", "xyz"])
    bench.begin(job)

    bench.run()

    deltas = await deltas_of(job)
    assert text_of(deltas) == "bcdefg"
    assert sum(len(delta.columns) for delta in deltas) == 6
    assert deltas[-1].finish is not None
    assert deltas[-1].finish.matched_stop == b"hi"


async def test_end_of_text_ends_it(bench: Bench) -> None:
    """The ring has no end of text of its own, so the end is forced by a bias."""
    job = bench.job("a", max_new_tokens=20, logit_bias={0: 100.0})
    bench.begin(job)

    bench.run()

    deltas = await deltas_of(job)
    assert text_of(deltas) == ""
    assert finish_of(deltas) is FinishReason.END_OF_TEXT


async def test_outputs_share_one_reading_of_the_prompt(bench: Bench) -> None:
    job = bench.job("abcdef", num_outputs=3, max_new_tokens=4)
    bench.begin(job)

    bench.run()

    assert bench.model.num_steps == 7 + 4
    deltas = await deltas_of(job)
    assert [text_of(deltas, index) for index in range(3)] == ["ghij"] * 3


async def test_more_outputs_than_rows_take_turns(bench: Bench) -> None:
    job = bench.job("a", num_outputs=10, max_new_tokens=4)
    bench.begin(job)

    bench.run()

    deltas = await deltas_of(job)
    assert [text_of(deltas, index) for index in range(10)] == ["bcde"] * 10


async def test_a_cancelled_row_is_free_within_one_tick(bench: Bench) -> None:
    jobs = [bench.job(max_new_tokens=10**6) for _ in range(4)]
    bench.begin(*jobs)
    bench.run_until(lambda: bench.engine.num_running == 4)

    jobs[1].is_cancelled = jobs[2].is_cancelled = True
    bench.tick()

    assert bench.engine.num_running == 2
    assert bench.engine.row_shares.has_room_for("")


async def test_a_prompt_cancelled_while_it_is_read_is_dropped(bench: Bench) -> None:
    job = bench.job("abc" * 50)
    bench.begin(job)
    bench.tick()

    job.is_cancelled = True
    bench.tick()

    assert not bench.engine.has_work


async def test_time_running_out_returns_what_there_is(bench: Bench) -> None:
    job = bench.job(max_new_tokens=10**6, deadline=200.0)
    bench.begin(job)
    bench.run_until(lambda: bench.engine.num_running == 1)
    bench.tick()

    bench.clock.now = 200.0
    bench.tick()

    deltas = await deltas_of(job)
    assert finish_of(deltas) is FinishReason.TIME_LIMIT
    assert text_of(deltas) == periodic("", len(text_of(deltas))) != ""
    assert not bench.engine.has_work


async def test_a_slow_client_is_parked_and_other_rows_run_on(paced: Bench) -> None:
    slow = paced.job("a", max_new_tokens=300, max_waiting_bytes=600)
    quick = paced.job("b", max_new_tokens=300)
    paced.begin(slow, quick)

    paced.run()

    assert text_of(await deltas_of(quick)) == periodic("b", 300)
    assert paced.engine.num_parked == 1


async def test_a_sequence_waits_runs_and_is_parked_until_it_is_finished(paced: Bench) -> None:
    job = paced.job("a", max_new_tokens=300, max_waiting_bytes=600)
    (sequence,) = job.sequences
    statuses = [sequence.status]
    paced.begin(job)

    while sequence.status is not SequenceStatus.FINISHED:
        paced.tick()
        if sequence.status is not statuses[-1]:
            statuses.append(sequence.status)
        if sequence.status is SequenceStatus.PARKED:
            await job.output.take(1 << 20)

    assert statuses[:3] == [SequenceStatus.WAITING, SequenceStatus.RUNNING, SequenceStatus.PARKED]


async def test_a_parked_row_goes_on_where_it_stopped(paced: Bench) -> None:
    job = paced.job("a", max_new_tokens=300, max_waiting_bytes=600)
    paced.begin(job)

    deltas: list[Delta] = []
    while not deltas or deltas[-1].finish is None:
        paced.run()
        deltas += await job.output.take(1 << 20)

    assert text_of(deltas) == periodic("a", 300)
    assert paced.rooms_made


async def test_a_cancelled_parked_row_is_dropped(paced: Bench) -> None:
    job = paced.job(max_new_tokens=300, max_waiting_bytes=200)
    paced.begin(job)
    paced.run()

    job.is_cancelled = True

    assert paced.engine.has_work
    paced.run()
    assert paced.engine.num_parked == 0


async def test_a_parked_row_makes_room_and_still_has_its_deadline(paced: Bench) -> None:
    jobs = [paced.job(max_new_tokens=300, max_waiting_bytes=200, deadline=200.0) for _ in range(4)]
    paced.begin(*jobs)
    paced.run()

    assert paced.engine.num_parked == 4
    assert paced.engine.row_shares.has_room_for("")
    assert paced.engine.next_deadline == 200.0


async def test_scores_are_the_log_probs_of_the_text(bench: Bench) -> None:
    job = bench.scoring_job("abc", "abd", "")
    bench.engine.begin(job)

    bench.run()

    parts = [part async for batch in job.output.batches(1 << 30) for part in batch]
    sums = [0.0, 0.0, 0.0]
    for part in parts:
        sums[part.item] += float(part.columns.logprobs_T.sum())
    assert sums == pytest.approx([0.0, -60.0, 0.0], abs=1e-4)


async def test_scoring_goes_on_between_decode_steps(bench: Bench) -> None:
    generation, scoring = bench.job(max_new_tokens=10**6), bench.scoring_job("abcdefg" * 20)
    bench.begin(generation)
    bench.engine.begin(scoring)

    bench.run_until(lambda: scoring.is_closed)

    assert not generation.is_closed
    assert bench.engine.num_running == 1


async def test_the_next_token_has_a_distribution(bench: Bench) -> None:
    job = NextDistributionJob(context_ids=[0, *ids_of("abc")], output=bench.output_buffer(1 << 20))
    bench.engine.begin(job)

    bench.run()

    [part] = await job.output.take(1 << 20)
    assert part.logprobs_V.argmax() == ids_of("d")[0]


async def test_details_are_returned_only_when_asked_for(bench: Bench) -> None:
    asked = bench.job("a", returns=Returns(ranks=True, entropies=True, num_alternatives=2))
    plain = bench.job("a")
    bench.begin(asked, plain)

    bench.run()

    columns = (await deltas_of(asked))[0].columns
    assert columns.ranks_T is not None
    assert columns.ranks_T.tolist() == [1] * len(columns)
    assert columns.top_ids_TK is not None
    assert columns.top_ids_TK.shape == (len(columns), 2)
    assert (await deltas_of(plain))[0].columns.ranks_T is None


async def test_large_details_are_cut_into_parts_that_fit_a_message(bench: Bench) -> None:
    job = bench.job("a", max_new_tokens=64, max_waiting_bytes=1 << 30)
    job.bytes_per_token = 100_000
    bench.begin(job)

    bench.run()

    deltas = await deltas_of(job)
    assert max(len(delta.columns) for delta in deltas) == 2
    assert text_of(deltas) == periodic("a", 64)


async def test_stop_all_ends_every_job(bench: Bench) -> None:
    generation, scoring = bench.job(max_new_tokens=10**6), bench.scoring_job("abc" * 1000)
    bench.begin(generation)
    bench.run_until(lambda: bench.engine.num_running == 1)
    bench.engine.begin(scoring)

    for event in bench.engine.stop_all():
        event.deliver()

    assert finish_of(await deltas_of(generation)) is FinishReason.DRAINED
    with pytest.raises(Exception, match="shutting down"):
        await scoring.output.take(1)
    assert not bench.engine.has_work


async def test_a_late_score_ends_with_an_error(bench: Bench) -> None:
    job = bench.scoring_job("abc", deadline=99.0)
    bench.engine.begin(job)

    bench.tick()

    with pytest.raises(DeadlineTooShort):
        await job.output.take(1)


def test_a_job_counts_all_its_possible_tokens(bench: Bench) -> None:
    job: GenerationJob = bench.job("abc", num_outputs=2, max_new_tokens=10)

    assert job.num_tokens == 4 + 20
