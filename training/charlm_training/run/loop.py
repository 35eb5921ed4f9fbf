"""The training loop: step, watch for divergence, evaluate now and then, keep the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

from charlm_training.budget import Budget, Clock
from charlm_training.errors import Diverged
from charlm_training.monitoring.events import Evaluated, Listener, Noticed, Progressed, Sampled
from charlm_training.optim.lr_scheduler import Schedule
from charlm_training.optim.weight_average import WeightAverage
from charlm_training.state_tree import Record
from charlm_training.step.learner import Learner, Snapshot, StepResult

NUM_REPORTS = 200
NUM_EVALUATIONS = 12
NUM_SAMPLES = 4
# Smoothed loss this far above its own minimum is no noise: it is on its way up.
DIVERGED_NATS = 1.0
SMOOTHING = 0.05
MAX_ROLLBACKS = 6
ROLLBACK_FACTOR = 0.5


class Examiner(Protocol):
    """Says how good a model is by now, and keeps it when it is the best so far."""

    @property
    def tokens_per_character(self) -> float: ...

    def score(self) -> float:
        """Nats per token on a slice of the validation text."""

    def sample(self) -> str: ...

    def keep(self) -> None:
        """The model as it is now is the best so far."""


@dataclass(slots=True)
class Milestones:
    """True once each time another n-th part of the budget is spent."""

    count: int
    passed: int = 0

    def reached(self, progress: float) -> bool:
        passed = min(math.floor(progress * self.count), self.count)
        is_new, self.passed = passed > self.passed, max(passed, self.passed)
        return is_new


@dataclass(slots=True)
class Watch:
    """Smooths the loss and tells a diverging run from a noisy one."""

    smooth: float = math.nan
    lowest: float = math.inf

    def is_diverging(self, result: StepResult) -> bool:
        loss = result.loss_nats
        if not (math.isfinite(loss) and math.isfinite(result.gradient_norm)):
            return True
        self.smooth = loss if math.isnan(self.smooth) else self._blend(loss)
        self.lowest = min(self.lowest, self.smooth)
        return self.smooth > self.lowest + DIVERGED_NATS

    def _blend(self, loss: float) -> float:
        return self.smooth + SMOOTHING * (loss - self.smooth)


@dataclass(slots=True)
class Meter:
    """Means over the steps since it was last read."""

    clock: Clock
    results: list[StepResult] = field(default_factory=list)
    since: float = 0.0

    def __post_init__(self) -> None:
        self.since = self.clock()

    def read(self) -> tuple[float, float, float]:
        """Mean loss in nats, mean gradient norm, targets per second; then starts anew."""
        now, targets = self.clock(), sum(result.num_targets for result in self.results)
        loss = sum(result.loss_nats * result.num_targets for result in self.results) / targets
        norm = sum(result.gradient_norm for result in self.results) / len(self.results)
        speed = targets / max(now - self.since, 1e-9)
        self.results, self.since = [], now
        return loss, norm, speed


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """What a run was asked to do, and how it is told to stop early."""

    schedule: Schedule
    budget: Budget
    clock: Clock
    is_interrupted: Callable[[], bool]
    after_step: Callable[[StepResult], None] = lambda result: None
    keep: Callable[[Callable[[], Record], bool], None] = lambda make_record, at_once: None
    """Between steps: may save a record of the loop; must, when the run stops before its end."""


class Loop:
    """Runs a learner until its budget is spent. It never asks which family it trains."""

    def __init__(
        self,
        learner: Learner,
        average: WeightAverage,
        course: Course,
        examiner: Examiner,
        listener: Listener,
    ) -> None:
        self._learner, self._average, self._course = learner, average, course
        self._examiner, self._listener = examiner, listener
        self._began = course.clock()
        self._watch, self._meter = Watch(), Meter(course.clock)
        self._reports, self._samples = Milestones(NUM_REPORTS), Milestones(NUM_SAMPLES)
        self._evaluations = Milestones(NUM_EVALUATIONS)
        self._best_nats, self._rate_scale, self._rollbacks = math.inf, 1.0, 0
        self._safe: Snapshot = learner.snapshot()

    def run(self) -> str:
        """Train to the end; returns why it ended: 'budget', 'interrupted' or 'diverged'."""
        while (progress := self._progress()) < 1:
            is_interrupted = self._course.is_interrupted()
            self._course.keep(self.to_record, is_interrupted)
            if is_interrupted:
                return self._finish("interrupted")
            rate = self._course.schedule.rate(progress) * self._rate_scale
            result = self._learner.step(rate)
            if self._watch.is_diverging(result):
                if self._rollbacks == MAX_ROLLBACKS:
                    return self._give_up()
                self._roll_back()
                continue
            self._meter.results.append(result)
            self._course.after_step(result)
            progress = self._progress()
            self._average.follow(progress)
            self._announce(progress, rate)
        return self._finish("budget")

    def to_record(self) -> Record:
        """All that the rest of the run depends on, as nested plain values and tensors."""
        return {
            "now": self._learner.snapshot().to_record(),
            "safe": self._safe.to_record(),
            "average": self._average.to_record(),
            "watch": asdict(self._watch),
            "passed": [each.passed for each in self._milestones()],
            "best_nats": self._best_nats,
            "rate_scale": self._rate_scale,
            "rollbacks": self._rollbacks,
            "elapsed_s": self._elapsed_s(),
        }

    def resume(self, record: Record) -> None:
        """Go on exactly where a record was made."""
        self._learner.restore(Snapshot.from_record(record["now"]))
        self._safe = Snapshot.from_record(record["safe"])
        self._average.resume(record["average"])
        self._watch = Watch(**record["watch"])
        for milestones, passed in zip(self._milestones(), record["passed"], strict=True):
            milestones.passed = passed
        self._best_nats, self._rate_scale = record["best_nats"], record["rate_scale"]
        self._rollbacks = record["rollbacks"]
        self._began = self._course.clock() - record["elapsed_s"]

    def _milestones(self) -> tuple[Milestones, ...]:
        return self._reports, self._samples, self._evaluations

    def _progress(self) -> float:
        return self._course.budget.progress(self._learner.spent)

    def _announce(self, progress: float, rate: float) -> None:
        """Everything that is due by now, except at the very end, where `_finish` does it."""
        if self._reports.reached(progress):
            self._report(progress, rate)
        if progress < 1 and self._evaluations.reached(progress):
            self._evaluate(progress)
        if progress < 1 and self._samples.reached(progress):
            with self._average.in_place():
                text = self._examiner.sample()
            self._listener(Sampled(step=self._learner.spent.steps, text=text))

    def _report(self, progress: float, rate: float) -> None:
        loss, norm, tokens_per_s = self._meter.read()
        elapsed_s = self._elapsed_s()
        self._listener(
            Progressed(
                step=self._learner.spent.steps,
                epoch=self._learner.spent.epochs,
                progress=min(progress, 1.0),
                loss_nats=loss,
                bits_per_character=self._bits(loss),
                learning_rate=rate,
                gradient_norm=norm,
                characters_per_s=tokens_per_s / self._examiner.tokens_per_character,
                elapsed_s=elapsed_s,
                remaining_s=elapsed_s * (1 - min(progress, 1.0)) / max(progress, 1e-9),
            )
        )

    def _evaluate(self, progress: float, *, is_end: bool = False) -> None:
        """Look at the mean of the latest weights; at the end, when rates are low, at both."""
        best_before = self._best_nats
        with self._average.in_place():
            nats = self._judge()
        if is_end:
            nats = min(nats, self._judge())
        if math.isfinite(nats):
            self._safe = self._learner.snapshot()
        self._listener(
            Evaluated(
                step=self._learner.spent.steps,
                progress=min(progress, 1.0),
                nats_per_token=nats,
                bits_per_character=self._bits(nats),
                is_best=self._best_nats < best_before,
                elapsed_s=self._elapsed_s(),
            )
        )

    def _judge(self) -> float:
        """How good the model is as it is now; the best so far is kept."""
        nats = self._examiner.score()
        if nats < self._best_nats:
            self._best_nats = nats
            self._examiner.keep()
        return nats

    def _roll_back(self) -> None:
        step = self._learner.spent.steps
        self._rollbacks += 1
        self._rate_scale *= ROLLBACK_FACTOR
        self._learner.restore(self._safe)
        self._average.forget()
        self._watch = Watch()
        self._listener(
            Noticed(
                text=f"The loss diverged at step {step:,}: went back to step "
                f"{self._learner.spent.steps:,} and goes on with {self._rate_scale:g} times "
                "the learning rate."
            )
        )

    def _give_up(self) -> str:
        if math.isinf(self._best_nats):
            raise Diverged(
                f"Training diverged {MAX_ROLLBACKS + 1} times, each time at a lower learning "
                "rate, and has nothing worth keeping. Try a --learning-rate a hundredth as high."
            )
        return "diverged"

    def _finish(self, reason: str) -> str:
        self._evaluate(self._progress(), is_end=True)
        return reason

    def _elapsed_s(self) -> float:
        return self._course.clock() - self._began

    def _bits(self, nats_per_token: float) -> float:
        return nats_per_token * self._examiner.tokens_per_character / math.log(2)
