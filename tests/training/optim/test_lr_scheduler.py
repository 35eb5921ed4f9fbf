"""The learning rate is tied to the budget: up shortly, then down to nearly nothing."""

import pytest

from charlm_training.errors import InvalidOption
from charlm_training.optim.lr_scheduler import Schedule

SCHEDULE = Schedule(peak=0.01, warmup=0.1, final_share=0.01)


def test_it_warms_up_to_its_peak() -> None:
    assert SCHEDULE.rate(0.05) == pytest.approx(0.005)
    assert SCHEDULE.rate(0.1) == pytest.approx(0.01)


def test_it_never_rises_after_the_warmup() -> None:
    rates = [SCHEDULE.rate(step / 100) for step in range(10, 101)]

    assert rates == sorted(rates, reverse=True)


def test_every_run_ends_annealed() -> None:
    assert SCHEDULE.rate(1.0) == pytest.approx(0.0001)
    assert SCHEDULE.rate(1.5) == pytest.approx(0.0001)


def test_the_first_step_already_learns() -> None:
    assert SCHEDULE.rate(0.0) > 0


@pytest.mark.parametrize("peak", [0.0, -0.1, 1.5])
def test_a_learning_rate_out_of_range_is_refused(peak: float) -> None:
    with pytest.raises(InvalidOption, match="--learning-rate"):
        Schedule(peak=peak)
