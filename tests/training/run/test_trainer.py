"""The trainer spends its budget and no more, keeps the best, and survives divergence."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_training.budget import Budget, Spent, StepBudget, TimeBudget
from charlm_training.corpus.windows import BatchShape
from charlm_training.errors import Diverged
from charlm_training.monitoring.events import Evaluated, Event, Noticed, Progressed, Sampled
from charlm_training.planning.plan import Plan
from charlm_training.run.metrics import Milestones
from charlm_training.run.trainer import MAX_ROLLBACKS, Trainer
from charlm_training.step.learner import StepResult

PLAN = Plan(
    config=ModelConfig(family="rnn", vocab_size=3, hidden_size=1),
    shape=BatchShape(batch_size=1, length=1),
    learning_rate=0.01,
    clip_norm=1.0,
    weight_decay=0.0,
    muon_rate=0.0,
)


@dataclass
class FakeLearner:
    """Its loss is whatever the script says for this step and rate; a step takes `step_s`."""

    loss_of: Callable[[int, float], float]
    clock: Any
    step_s: float = 1.0
    steps: int = 0
    model: torch.nn.Module = field(default_factory=lambda: torch.nn.Linear(1, 1))
    rates: list[float] = field(default_factory=list)

    @property
    def spent(self) -> Spent:
        return Spent(self.steps, self.steps / 100)

    def step(self, rate: float) -> StepResult:
        self.steps += 1
        self.rates.append(rate)
        self.clock.now += self.step_s
        return StepResult(
            loss_nats=self.loss_of(self.steps, rate), gradient_norm=1.0, num_targets=10
        )

    def snapshot(self) -> int:
        return self.steps

    def restore(self, snapshot: int) -> None:
        self.steps = snapshot


@dataclass
class FakeValidator:
    """Its scores are given; it remembers which were kept."""

    scores: Iterator[float]
    kept: int = 0
    tokens_per_character: float = 1.0

    def score(self) -> float:
        return next(self.scores)

    def sample(self) -> str:
        return "sample"

    def keep_best(self) -> None:
        self.kept += 1


@dataclass
class Bench:
    """A trainer with fake components."""

    clock: Any
    loss_of: Callable[[int, float], float] = lambda step, rate: 2.0
    scores: Callable[[], Iterator[float]] = lambda: iter([2.0] * 99)
    is_interrupted: Callable[[], bool] = lambda: False
    events: list[Event] = field(default_factory=list)

    def run(self, budget: Budget) -> str:
        self.learner = FakeLearner(self.loss_of, self.clock)
        self.validator = FakeValidator(self.scores())
        return Trainer(
            plan=PLAN,
            learner=self.learner,  # type: ignore[arg-type]
            validator=self.validator,  # type: ignore[arg-type]
            budget=budget,
            clock=self.clock,
            listener=self.events.append,
            is_interrupted=self.is_interrupted,
        ).train()

    def heard(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def bench(clock: Any) -> Bench:
    return Bench(clock)


def test_a_step_budget_makes_exactly_its_steps(bench: Bench) -> None:
    assert bench.run(StepBudget(37)) == "budget"

    assert bench.learner.steps == 37


def test_a_wall_clock_ends_in_time(bench: Bench) -> None:
    """100 seconds, 20 of them reserved, a second a step: 80 steps, then the end."""
    budget = TimeBudget(100, bench.clock)
    budget.begin_training()
    budget.reserve(20)

    bench.run(budget)

    assert bench.learner.steps == 80
    assert budget.remaining_s() == pytest.approx(20)


def test_a_slow_machine_still_ends_annealed(bench: Bench) -> None:
    """Steps that take ten times as long halfway through: fewer steps, the same schedule."""
    budget = TimeBudget(1000, bench.clock)
    budget.begin_training()

    def throttled(step: int, rate: float) -> float:
        bench.clock.now += 9 if step > 300 else 0
        return 2.0

    bench.loss_of = throttled
    bench.run(budget)

    assert bench.learner.steps == 370
    assert bench.learner.rates[-1] < 0.02 * max(bench.learner.rates)


def test_an_interruption_ends_after_the_step_with_an_evaluation(bench: Bench) -> None:
    bench.is_interrupted = lambda: bench.learner.steps == 5

    assert bench.run(StepBudget(100)) == "interrupted"

    assert bench.learner.steps == 5
    assert bench.heard(Evaluated)[-1].step == 5
    assert bench.validator.kept == 1


def test_only_improvements_are_kept(bench: Bench) -> None:
    bench.scores = lambda: iter([2.0, 1.9, 1.95, 1.8, *[1.85] * 99])

    bench.run(StepBudget(120))

    assert bench.validator.kept == 3
    assert [event.is_best for event in bench.heard(Evaluated)][:5] == [
        True, True, False, True, False,
    ]  # fmt: skip


def test_the_mean_of_weights_is_evaluated_and_at_the_end_the_weights_too(clock: Any) -> None:
    """Weights jump to and fro about zero, and come to rest at the end, where their mean lags."""
    model = torch.nn.Linear(1, 1, bias=False)

    def jump(step: int, rate: float) -> float:
        with torch.no_grad():
            model.weight.fill_(0.01 if step == 1000 else (-1.0) ** step)
        return 2.0

    class Distance(FakeValidator):
        def score(self) -> float:
            return abs(float(model.weight.detach()))

        def keep_best(self) -> None:
            self.best = float(model.weight.detach())

    learner, validator, events = FakeLearner(jump, clock), Distance(iter(())), list[Event]()
    learner.model = model
    Trainer(
        plan=PLAN,
        learner=learner,  # type: ignore[arg-type]
        validator=validator,  # type: ignore[arg-type]
        budget=StepBudget(1000),
        clock=clock,
        listener=events.append,
        is_interrupted=lambda: False,
    ).train()

    looks = [event.nats_per_token for event in events if isinstance(event, Evaluated)]
    assert len(looks) == 12
    assert max(looks) < 0.5
    assert looks[-1] == pytest.approx(0.01)
    assert validator.best == pytest.approx(0.01)


def test_progress_and_samples_are_reported_at_milestones(bench: Bench) -> None:
    bench.run(StepBudget(1000))

    assert len(bench.heard(Progressed)) == 200
    assert len(bench.heard(Sampled)) == 3
    assert bench.heard(Progressed)[-1].progress == 1.0
    assert bench.heard(Progressed)[-1].remaining_s == 0


def test_speed_and_remaining_time_follow_the_clock(bench: Bench) -> None:
    bench.run(StepBudget(400))

    half = bench.heard(Progressed)[99]
    assert half.progress == 0.5
    assert half.characters_per_s == pytest.approx(10)
    assert (half.elapsed_s, half.remaining_s) == (200, 200)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])
def test_divergence_rolls_back_with_a_lower_rate_and_a_notice(bench: Bench, bad: float) -> None:
    """It explodes at step 50 while the rate is high."""
    bench.loss_of = lambda step, rate: bad if step == 50 and rate > 0.004 else 2.0

    assert bench.run(StepBudget(100)) == "budget"

    (notice,) = bench.heard(Noticed)
    assert "diverged at step 50: went back to step 42" in notice.text
    assert "0.5 times the learning rate" in notice.text
    assert bench.learner.steps == 100


def test_a_slow_rise_is_divergence_too(bench: Bench) -> None:
    bench.loss_of = lambda step, rate: (
        2.0 + (0.1 * (step - 40) if step > 40 and rate > 0.002 else 0)
    )

    bench.run(StepBudget(100))

    assert bench.heard(Noticed)


def test_a_noisy_loss_is_no_divergence(bench: Bench) -> None:
    bench.loss_of = lambda step, rate: 4.0 if step % 10 == 0 else 2.0

    bench.run(StepBudget(300))

    assert not bench.heard(Noticed)


def test_repeated_divergence_keeps_the_best_weights(bench: Bench) -> None:
    bench.loss_of = lambda step, rate: math.nan if step > 50 else 2.0

    assert bench.run(StepBudget(100)) == "diverged"

    assert bench.validator.kept == 1
    assert len(bench.heard(Noticed)) == MAX_ROLLBACKS


def test_divergence_without_any_kept_weights_is_an_error(bench: Bench) -> None:
    bench.loss_of = lambda step, rate: math.nan

    with pytest.raises(Diverged, match="Try a --learning-rate"):
        bench.run(StepBudget(100))


def test_milestones_are_passed_once() -> None:
    milestones = Milestones(4)

    reached = [milestones.reached(progress / 10) for progress in range(12)]

    assert [index for index, is_new in enumerate(reached) if is_new] == [3, 5, 8, 10]
