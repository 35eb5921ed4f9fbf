"""A budget is a contract: progress is what was spent of it, and it reaches 1 in time."""

from typing import Any

import pytest

from charlm_training.budget import (
    EpochBudget,
    Spent,
    StepBudget,
    Throughput,
    TimeBudget,
    parse_duration,
)
from charlm_training.errors import InvalidOption


def test_steps_and_epochs_are_counted() -> None:
    spent = Spent(steps=25, epochs=0.5)

    assert StepBudget(100).progress(spent) == 0.25
    assert EpochBudget(2).progress(spent) == 0.25


def test_a_time_budget_ends_where_its_reserve_begins(clock: Any) -> None:
    budget = TimeBudget(100, clock)
    clock.now += 10

    budget.begin_training()
    budget.reserve(20)
    clock.now += 35

    assert budget.progress(Spent(0, 0)) == pytest.approx(0.5)
    clock.now += 35
    assert budget.progress(Spent(0, 0)) == pytest.approx(1.0)
    assert budget.remaining_s() == pytest.approx(20)


def test_what_is_kept_back_may_change_while_training_runs(clock: Any) -> None:
    budget = TimeBudget(100, clock)
    budget.reserve(10)
    clock.now += 45

    budget.reserve(40)

    assert budget.progress(Spent(0, 0)) == pytest.approx(0.75)


def test_a_long_evaluation_still_leaves_half_to_training(clock: Any) -> None:
    budget = TimeBudget(100, clock)

    budget.reserve(1000)
    clock.now += 25

    assert budget.progress(Spent(0, 0)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("96s", 96), ("3m", 180), ("1h30m", 5400), ("1m30", 90), ("1.5m", 90)],
)
def test_durations_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "3 minutes", "-5", "0", "0s", "1000h", "m"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="--budget"):
        parse_duration(text)


def test_affordable_tokens_follow_from_the_throughput(clock: Any) -> None:
    throughput = Throughput(
        tokens_per_step=10, tokens_per_epoch=1000, measure_tokens_per_s=lambda: 50.0
    )

    assert StepBudget(7).affordable_tokens(throughput) == 70
    assert EpochBudget(1.5).affordable_tokens(throughput) == 1500
    assert TimeBudget(100, clock).affordable_tokens(throughput) == pytest.approx(4500)


def test_counted_budgets_never_measure_speed() -> None:
    """A run of so many steps must be the same on a fast and on a slow machine."""

    def measure() -> float:
        raise AssertionError("speed was measured")

    throughput = Throughput(tokens_per_step=10, tokens_per_epoch=1000, measure_tokens_per_s=measure)

    assert StepBudget(7).affordable_tokens(throughput) == 70
