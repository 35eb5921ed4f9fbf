"""Size and batch follow from the text and the budget; what a person sets is taken as it is."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from charlm_model.errors import InvalidConfig
from charlm_training.budget import StepBudget, TimeBudget
from charlm_training.corpus.dataset import Data
from charlm_training.errors import InvalidOption
from charlm_training.planning.options import SizeOptions
from charlm_training.planning.plan import Planner, tokens_per_s
from charlm_training.planning.presets import RECIPES, ModelSize, choose_size, dropout_for

Read = Callable[..., Data]


def planner(data: Data, clock: Any, *, steps: int = 10, **options: Any) -> Planner:
    return Planner("lstm", data, StepBudget(steps), SizeOptions(**options), clock)


def test_a_200_character_corpus_reduces_the_batch_with_a_notice(read: Read, clock: Any) -> None:
    plan = planner(read("to be or not to be, " * 10), clock).plan(seed=0)

    (notice,) = plan.notices
    assert "180 characters" in notice
    assert "from 32 x 64 to 2 x 45" in notice
    assert (plan.shape.batch_size, plan.shape.length) == (2, 45)


@pytest.mark.parametrize("length", [10, 11, 20, 50, 199, 1000])
@pytest.mark.parametrize("unit", ["stream", "line"])
def test_every_small_corpus_yields_windows(read: Read, clock: Any, length: int, unit: str) -> None:
    data = read(("ab\ncde\n" * 200)[:length], unit=unit)

    learner = planner(data, clock).plan(seed=0).learner(data)

    assert learner.step(0.01).num_targets > 0


def test_more_steps_get_a_larger_model(read: Read, clock: Any) -> None:
    data = read("the cat sat on the mat. " * 4000)

    small = planner(data, clock, steps=50).plan(seed=0).config
    large = planner(data, clock, steps=20_000).plan(seed=0).config

    assert small.hidden_size < large.hidden_size


def test_more_epochs_of_more_parameters_get_more_dropout() -> None:
    def dropout(family: str, epochs: float, parameters_per_token: float) -> float:
        recipe = RECIPES[family]
        return dropout_for(recipe, epochs=epochs, parameters_per_token=parameters_per_token)

    assert [dropout("lstm", epochs, 1.0) for epochs in (0.5, 2, 3, 6, 100)] == [
        0, 0.08, 0.14, 0.27, 0.61,
    ]  # fmt: skip
    assert dropout("lstm", 6, 0.01) == 0
    assert 0 < dropout("transformer", 6, 1.0) < dropout("lstm", 6, 1.0)
    assert dropout("transformer", 10_000, 1.0) == 0.3


def test_what_a_person_sets_is_taken(read: Read, clock: Any) -> None:
    options = {
        "hidden_size": 24, "num_layers": 2, "embedding_size": 5, "dropout": 0.4,
        "learning_rate": 0.001, "batch_size": 3, "window_length": 7,
    }  # fmt: skip

    plan = planner(read("abcdefghij" * 30), clock, **options).plan(seed=0)

    found = {**plan.config.to_json(), **plan.settings()}
    assert {name: found[name] for name in options} == options


def test_a_plan_and_a_seed_give_the_same_weights_whatever_was_probed(
    read: Read, clock: Any
) -> None:
    data = read("abcd" * 100)
    plan = planner(data, clock).plan(seed=3)
    first = plan.learner(data).model.state_dict()
    torch.randn(10)

    second = plan.learner(data).model.state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_wall_clock_is_planned_by_measured_speed(read: Read, clock: Any) -> None:
    """On a clock that ticks faster, the same machine looks slower and gets a smaller model."""
    data = read("the cat sat on the mat. " * 4000)

    def hidden_size(tick_s: float) -> int:
        clock.tick_s = tick_s
        budget = TimeBudget(200, clock)
        return Planner("gru", data, budget, SizeOptions(), clock).plan(seed=0).config.hidden_size

    assert hidden_size(tick_s=2.0) < hidden_size(tick_s=0.02)


def test_a_neighbor_that_takes_the_processor_now_and_then_changes_no_plan(
    read: Read, clock: Any
) -> None:
    data = read("the cat sat on the mat. " * 400)
    learner = planner(data, clock, hidden_size=8, batch_size=4).plan(seed=0).learner(data)
    durations = itertools.cycle([0.9, 0.1, 0.4, 0.7])

    def busy_clock() -> float:
        clock.now += next(durations)
        return float(clock.now)

    assert tokens_per_s(learner, busy_clock) == pytest.approx(4 * 64 / 0.1)


def test_a_probe_takes_no_more_than_its_share_of_a_short_budget(read: Read, clock: Any) -> None:
    clock.tick_s = 0.5
    data = read("abcd" * 100)
    learner = planner(data, clock, hidden_size=8).plan(seed=0).learner(data)
    began = clock.now

    tokens_per_s(learner, clock, most_s=1.0)

    assert learner.spent.steps == 2
    assert clock.now - began < 4


@pytest.mark.parametrize("budget_tokens", [0, 1e3, 1e6, 1e9, 1e12])
def test_the_largest_affordable_size_is_found(budget_tokens: float) -> None:
    sizes = tuple(ModelSize(hidden_size) for hidden_size in (8, 16, 32, 64, 128))

    def parameters(size: ModelSize) -> int:
        return size.hidden_size**2

    def affordable(size: ModelSize) -> float:
        return budget_tokens / parameters(size)

    chosen = choose_size(
        sizes, num_parameters=parameters, affordable_tokens=affordable, train_tokens=10**9
    )

    fitting = [size for size in sizes if affordable(size) >= 6 * parameters(size)]
    assert chosen == (fitting[-1] if fitting else sizes[0])


def test_a_short_text_gets_no_large_model() -> None:
    sizes = tuple(ModelSize(hidden_size) for hidden_size in (8, 16, 32, 64, 128))

    chosen = choose_size(
        sizes,
        num_parameters=lambda size: size.hidden_size**2,
        affordable_tokens=lambda size: 1e12,
        train_tokens=1000,
    )

    assert chosen == ModelSize(32)


@pytest.mark.parametrize("family", RECIPES)
def test_every_rung_is_a_model(family: str, read: Read, clock: Any) -> None:
    data = read("abcd" * 100)
    planner = Planner(family, data, StepBudget(1), SizeOptions(), clock)

    sizes = [planner._num_parameters(size) for size in RECIPES[family].sizes]

    assert sizes == sorted(sizes)


@pytest.mark.parametrize("family", RECIPES)
def test_a_kernel_of_one_token_sees_nothing_else(family: str, read: Read, clock: Any) -> None:
    options = SizeOptions(kernel_size=1)

    config = Planner(family, read("abcd" * 100), StepBudget(1), options, clock).plan(0).config

    assert (config.kernel_size, config.pair_rows) == (1, 0)


@pytest.mark.parametrize("name", ["batch_size", "window_length"])
@pytest.mark.parametrize("value", [0, -1, 70_000])
def test_a_shape_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(InvalidOption, match=rf"--{name.replace('_', '-')} is {value}"):
        SizeOptions(**{name: value})


def test_a_size_no_model_can_have_is_refused(read: Read, clock: Any) -> None:
    with pytest.raises(InvalidConfig, match="hidden_size is 0"):
        planner(read("abcd" * 100), clock, hidden_size=0).plan(seed=0)


def test_zero_is_not_taken_for_unset(read: Read, clock: Any) -> None:
    with pytest.raises(InvalidConfig, match="num_layers is 0"):
        planner(read("abcd" * 100), clock, num_layers=0).plan(seed=0)
