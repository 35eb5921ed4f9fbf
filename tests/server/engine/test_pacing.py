"""As many steps as fit the target time."""

import random
from collections.abc import Callable

import pytest

from charlm_server.engine.pacing import ROUND, SHORT, ChunkPacer, StepPacer
from charlm_server.scheduling.admission import WaitEstimate


def test_the_first_piece_is_one_step() -> None:
    assert StepPacer(64).num_steps(1.0) == 1


def test_steps_fit_the_target_time() -> None:
    pacer = StepPacer(64)

    pacer.record(10, 0.01)

    assert pacer.num_steps(0.0055) == 5


def test_there_is_always_a_step_and_never_too_many() -> None:
    pacer = StepPacer(64)

    pacer.record(1, 1.0)

    assert pacer.num_steps(0.01) == 1
    assert pacer.num_steps(1000.0) == 64


def test_queue_wait_is_jobs_ahead_over_their_rate() -> None:
    wait = WaitEstimate()
    for second in range(5):
        wait.record(float(second))

    assert wait.seconds_for(num_ahead=9, now=4.0) == 10.0


def test_an_unknown_wait_refuses_nothing() -> None:
    assert WaitEstimate().seconds_for(num_ahead=9, now=4.0) == 0.0


def read(pacer: ChunkPacer, num_chunks: int, cost: Callable[[int], float]) -> int:
    """Read so many chunks; returns the longest of the last round."""
    lengths = []
    for _ in range(num_chunks):
        lengths.append(pacer.num_steps(0.01))
        pacer.record(lengths[-1], cost(lengths[-1]))
    return max(lengths[-ROUND:])


def test_a_chunk_fits_the_target_where_each_token_costs_the_same() -> None:
    num_steps = read(ChunkPacer(1024), 100, lambda num: 0.0001 * num)

    assert 50 <= num_steps <= 100


def test_cheap_tokens_are_read_in_the_longest_chunks() -> None:
    assert read(ChunkPacer(256), 20, lambda num: 0.00001 * num) == 256


def test_a_fixed_cost_above_the_target_is_spread_over_many_tokens() -> None:
    """Chunks of one token would do a tenth of the work in the same time."""
    num_steps = read(ChunkPacer(1024), 60, lambda num: 0.03 + 0.003 * num)

    assert 5 <= num_steps <= 12


def test_chunks_become_shorter_when_tokens_cost_more() -> None:
    pacer = ChunkPacer(1024)
    read(pacer, 50, lambda num: 0.00001 * num)

    assert read(pacer, 100, lambda num: 0.005 + 0.001 * num) <= 10


def test_chunks_become_longer_when_tokens_cost_less() -> None:
    pacer = ChunkPacer(1024)
    read(pacer, 50, lambda num: 0.005 + 0.001 * num)

    assert read(pacer, 100, lambda num: 0.00001 * num) > 900


@pytest.mark.parametrize("seed", range(5))
def test_disturbed_measurements_do_not_make_chunks_too_long(seed: int) -> None:
    """Every fiftieth chunk seems to take five times what it does, all of them up to 30 % more."""
    pacer, drawn = ChunkPacer(1024), random.Random(seed)
    true_s = []
    for _ in range(2000):
        num_steps = pacer.num_steps(0.01)
        true_s.append(0.003 + 0.0001 * num_steps)
        outlier = 5 if drawn.random() < 0.02 else 1
        pacer.record(num_steps, true_s[-1] * drawn.uniform(0.7, 1.3) * outlier)

    assert sorted(true_s)[len(true_s) // 2] < 0.011
    assert sorted(true_s)[len(true_s) * 99 // 100] < 0.025


def test_a_second_chunk_may_hold_a_short_prompt() -> None:
    pacer = ChunkPacer(1024)
    pacer.record(1, 0.0001)

    assert pacer.num_steps(0.01) == 2 * SHORT
