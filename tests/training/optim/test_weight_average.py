"""The mean of the latest weights: over a share of the run, whatever its steps; never for good."""

import math

import pytest
import torch
from torch import nn

from charlm_training.optim.weight_average import HORIZON, WeightAverage


def model_at(value: float) -> nn.Linear:
    model = nn.Linear(2, 1)
    set_to(model, value)
    return model


def set_to(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def value_of(model: nn.Linear) -> float:
    assert len(set(model.weight.flatten().tolist())) == 1
    return float(model.weight[0, 0].detach())


def mean_of(average: WeightAverage, model: nn.Linear) -> float:
    with average.in_place():
        return value_of(model)


@pytest.mark.parametrize("num_steps", [200, 3000])
def test_a_change_has_reached_it_by_its_share_after_a_horizon(num_steps: int) -> None:
    model = model_at(0.0)
    average = WeightAverage(model)
    for step in range(1, num_steps + 1):
        progress = step / num_steps
        set_to(model, 1.0 if progress > 0.5 else 0.0)
        average.follow(progress)
        if progress <= 0.5 + HORIZON:
            reached = mean_of(average, model)

    assert reached == pytest.approx(1 - 1 / math.e, abs=0.03)
    assert mean_of(average, model) == pytest.approx(1.0, abs=1e-4)


def test_young_it_forgets_what_a_run_began_with() -> None:
    model = model_at(9.0)
    average = WeightAverage(model)
    for step in range(1, 51):
        set_to(model, 9.0 if step == 1 else 1.0)
        average.follow(step / 1000)

    assert mean_of(average, model) == pytest.approx(1.0, abs=0.01)


def test_the_weights_come_back_even_from_a_failure() -> None:
    model = model_at(0.0)
    average = WeightAverage(model)
    average.follow(0.1)
    set_to(model, 3.0)

    def fail() -> None:
        with average.in_place():
            assert value_of(model) == 0.0
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()

    assert value_of(model) == 3.0


def test_before_the_first_step_it_is_the_weights_and_after_going_back_too() -> None:
    model = model_at(2.0)
    average = WeightAverage(model)
    assert mean_of(average, model) == 2.0
    average.follow(0.1)
    set_to(model, 5.0)

    average.forget()

    assert mean_of(average, model) == 5.0


def test_resumed_it_goes_on_with_the_same_bits() -> None:
    def followed(average: WeightAverage, steps: range) -> None:
        for step in steps:
            set_to(model, math.sin(step))
            average.follow(step / 100)

    model = model_at(0.0)
    whole, first, second = WeightAverage(model), WeightAverage(model), WeightAverage(model)
    followed(whole, range(1, 60))
    followed(first, range(1, 30))
    state = first.state_dict()
    second.load_state_dict(state)
    followed(first, range(30, 40))  # which must not reach the record's reader

    followed(second, range(30, 60))

    assert mean_of(second, model) == mean_of(whole, model)
