"""A budget is a contract: progress is what was spent of it, and it reaches 1 in time."""

import pytest

from charlm_training.budget import (
    EpochBudget,
    Spent,
    StepBudget,
    TimeBudget,
    parse_duration,
)
from charlm_training.errors import InvalidOption


class FakeClock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_steps_and_epochs_are_counted() -> None:
    spent = Spent(steps=25, epochs=0.5)

    assert StepBudget(100).progress(spent) == 0.25
    assert EpochBudget(2).progress(spent) == 0.25


def test_a_time_budget_ends_where_its_reserve_begins() -> None:
    clock = FakeClock()
    budget = TimeBudget(100, clock)
    clock.now += 10

    budget.begin_training(reserve_s=20)
    clock.now += 35

    assert budget.progress(Spent(0, 0)) == pytest.approx(0.5)
    clock.now += 35
    assert budget.progress(Spent(0, 0)) == pytest.approx(1.0)
    assert budget.remaining_s() == pytest.approx(20)


def test_a_reserve_may_grow_while_training_runs() -> None:
    clock = FakeClock()
    budget = TimeBudget(100, clock)
    budget.begin_training(reserve_s=10)
    clock.now += 45

    budget.set_reserve(40)

    assert budget.progress(Spent(0, 0)) == pytest.approx(0.75)


def test_a_huge_reserve_still_leaves_half_to_training() -> None:
    budget = TimeBudget(100, FakeClock())

    budget.begin_training(reserve_s=1000)

    assert budget.reserve_s == 50


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
