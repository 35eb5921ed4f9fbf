"""The state at the end of an output or of a scored text, without reading all of it again."""

import pytest

from charlm_model.snapshot import Snapshot
from charlm_server.engine.end_states import MIN_DISTANCE
from charlm_server.errors.overload import DeadlinePassed
from tests.server.conftest import ALPHABET, Bench, deltas_of, ids_of, text_of

PROMPT = ALPHABET * 40


def is_after(text: str, snapshot: Snapshot) -> bool:
    """Of the periodic model, whose state is the last token."""
    last = snapshot.state.tensors["last"].tolist()
    return (last, snapshot.num_tokens) == (ids_of(text[-1]), len(text))


async def test_the_prompt_is_read_once(bench: Bench) -> None:
    job = bench.job(PROMPT, max_new_tokens=10, returns_states=True)
    bench.begin(job)
    bench.run()

    text = PROMPT + text_of(await deltas_of(job))
    assert is_after(text, job.end_states[0])
    assert bench.model.num_steps < len(PROMPT) + 50


async def test_little_of_a_long_output_is_read_again(bench: Bench) -> None:
    plain = bench.job("a", max_new_tokens=1000)
    bench.begin(plain)
    bench.run()
    num_steps = bench.model.num_steps
    job = bench.job("a", max_new_tokens=1000, returns_states=True)
    bench.begin(job)
    bench.run()

    assert is_after("a" + text_of(await deltas_of(job)), job.end_states[0])
    assert bench.model.num_steps - 2 * num_steps <= 2 * MIN_DISTANCE


async def test_the_state_is_where_a_stop_sequence_began(bench: Bench) -> None:
    job = bench.job("a", max_new_tokens=200, stops=["xyza"], returns_states=True)
    bench.begin(job)
    bench.run()

    text = text_of(await deltas_of(job))
    assert text.endswith("w")
    assert is_after("a" + text, job.end_states[0])


async def test_every_output_has_a_state_and_the_last_one_closes_the_call(bench: Bench) -> None:
    job = bench.job("abc", max_new_tokens=30, num_outputs=3, returns_states=True)
    bench.begin(job)
    bench.run()

    deltas = await deltas_of(job)
    assert sorted(job.end_states) == [0, 1, 2]
    assert [delta.is_last for delta in deltas if delta.finish is not None] == [False, False, True]


async def test_an_output_that_time_cut_short_has_no_state(bench: Bench) -> None:
    job = bench.job("abc", max_new_tokens=10**6, time_limit=101.0, returns_states=True)
    bench.begin(job)
    bench.tick()
    bench.clock.now = 102.0
    bench.run()

    assert (await deltas_of(job))[-1].is_last
    assert not job.end_states


async def test_a_deadline_ends_the_wait_for_a_state(bench: Bench) -> None:
    job = bench.job("abc", max_new_tokens=2, deadline=105.0, returns_states=True)
    bench.begin(job)
    while job.sequences[0].finish is None:
        bench.tick()
    bench.clock.now = 106.0
    bench.run()

    with pytest.raises(DeadlinePassed):
        await deltas_of(job)


async def test_a_scored_text_is_read_once(bench: Bench) -> None:
    job = bench.scoring_job(PROMPT, returns_states=True)
    bench.engine.begin(job)
    bench.run()

    parts = [part async for parts in job.output.batches(1 << 30) for part in parts]
    assert sum(len(part.columns) for part in parts) == len(PROMPT)
    assert is_after(PROMPT, job.end_states[0])
    assert bench.model.num_steps == len(PROMPT) + 1
