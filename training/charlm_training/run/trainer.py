"""The training loop: make a step, detect divergence, evaluate at intervals, keep the best weights.

The words are those of torchtitan: a Trainer runs the loop, and its components (Checkpointer,
Validator, metrics, learning rate schedule, process group) each do one thing in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch

from charlm_training.budget import Budget, Clock
from charlm_training.errors import Diverged
from charlm_training.monitoring.events import (
    Evaluated,
    Listener,
    Noticed,
    Progressed,
    Resumed,
    Sampled,
)
from charlm_training.optim.lr_scheduler import Schedule
from charlm_training.optim.weight_average import WeightAverage
from charlm_training.planning.plan import Plan
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.run.checkpointer import Checkpointer
from charlm_training.run.metrics import DivergenceDetector, Milestones, StepMetrics
from charlm_training.run.stopwatch import Stopwatch
from charlm_training.run.validator import Validator
from charlm_training.state_tree import Record
from charlm_training.step.learner import Learner, LearnerSnapshot
from charlm_training.step.threads import ThreadGovernor

NUM_REPORTS = 200
NUM_EVALUATIONS = 12
NUM_SAMPLES = 4
MAX_ROLLBACKS = 6
ROLLBACK_FACTOR = 0.5


@dataclass(kw_only=True, slots=True)
class Trainer:
    """Trains a model by gradients until its budget is spent. Any family is trained alike.

    Of several processes, all make the same steps and the same calls in the same order.
    """

    plan: Plan
    learner: Learner
    validator: Validator
    budget: Budget
    clock: Clock
    listener: Listener
    is_interrupted: Callable[[], bool]
    checkpointer: Checkpointer | None = None
    threads: ThreadGovernor | None = None
    group: ProcessGroup = SINGLE_PROCESS
    _schedule: Schedule = field(init=False)
    _average: WeightAverage = field(init=False)
    _stopwatch: Stopwatch = field(init=False)
    _divergence: DivergenceDetector = field(init=False, default_factory=DivergenceDetector)
    _metrics: StepMetrics = field(init=False)
    _reports: Milestones = field(init=False)
    _evaluations: Milestones = field(init=False)
    _samples: Milestones = field(init=False)
    _best_nats: float = field(init=False, default=math.inf)
    _rate_scale: float = field(init=False, default=1.0)
    _rollbacks: int = field(init=False, default=0)
    _last_good: LearnerSnapshot = field(init=False)

    def __post_init__(self) -> None:
        self._schedule = Schedule(peak=self.plan.learning_rate)
        self._average = WeightAverage(self.learner.model)
        self._stopwatch, self._metrics = Stopwatch(self.clock), StepMetrics(self.clock)
        self._reports, self._samples = Milestones(NUM_REPORTS), Milestones(NUM_SAMPLES)
        self._evaluations = Milestones(NUM_EVALUATIONS)
        self._last_good = self.learner.snapshot()

    def train(self) -> str:
        """Train to the end; returns why it ended: 'budget', 'interrupted' or 'diverged'."""
        while (progress := self._progress()) < 1:
            is_interrupted = self.group.any(self.is_interrupted())
            if self.checkpointer is not None:
                self.checkpointer.save_if_due(self, at_once=is_interrupted)
            if is_interrupted:
                return self._finish("interrupted")
            rate = self._schedule.rate(progress) * self._rate_scale
            result = self.learner.step(rate)
            if self._divergence.is_diverging(result):
                if self._rollbacks == MAX_ROLLBACKS:
                    return self._give_up()
                self._roll_back()
                continue
            self._metrics.results.append(result)
            if self.threads is not None:
                self.threads.count(result.num_targets)
            progress = self._progress()
            self._average.follow(progress)
            self._pass_milestones(progress, rate)
        return self._finish("budget")

    def state_dict(self) -> Record:
        """All that the rest of the run depends on, as nested plain values and tensors."""
        return {
            "plan": self.plan.to_record(),
            "loop": self._loop_state(),
            "best": self.validator.best,
            "spent_s": self.budget.spent_s(),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(self, state: Record) -> None:
        """Continue exactly where `state_dict` was called, perhaps in an earlier process."""
        self.validator.best = state["best"]
        self._load_loop_state(state["loop"])
        self.budget.carry_over(state["spent_s"])
        if self.budget.seconds() is None:
            # Another number of threads would add up in another order, and end in other bits.
            torch.set_num_threads(state["threads"])
        self.listener(Resumed(step=self.learner.spent.steps))

    def _loop_state(self) -> Record:
        return {
            "now": self.learner.snapshot().to_record(),
            "safe": self._last_good.to_record(),
            "average": self._average.state_dict(),
            "watch": asdict(self._divergence),
            "passed": [each.passed for each in self._milestones()],
            "best_nats": self._best_nats,
            "rate_scale": self._rate_scale,
            "rollbacks": self._rollbacks,
            "elapsed_s": self._stopwatch.elapsed_s(),
        }

    def _load_loop_state(self, state: Record) -> None:
        self.learner.restore(LearnerSnapshot.from_record(state["now"]))
        self._last_good = LearnerSnapshot.from_record(state["safe"])
        self._average.load_state_dict(state["average"])
        self._divergence = DivergenceDetector(**state["watch"])
        for milestones, passed in zip(self._milestones(), state["passed"], strict=True):
            milestones.passed = passed
        self._best_nats, self._rate_scale = state["best_nats"], state["rate_scale"]
        self._rollbacks = state["rollbacks"]
        self._stopwatch.carry_over(state["elapsed_s"])

    def _milestones(self) -> tuple[Milestones, ...]:
        return self._reports, self._samples, self._evaluations

    def _progress(self) -> float:
        return self.budget.progress(self.learner.spent)

    def _pass_milestones(self, progress: float, rate: float) -> None:
        """Report, evaluate and sample where due; the last evaluation is left to `_finish`."""
        if self._reports.reached(progress):
            self._report(progress, rate)
        if progress < 1 and self._evaluations.reached(progress):
            self._evaluate(progress)
        if progress < 1 and self._samples.reached(progress):
            with self._average.in_place():
                text = self.validator.sample()
            self.listener(Sampled(step=self.learner.spent.steps, text=text))

    def _report(self, progress: float, rate: float) -> None:
        loss, norm, tokens_per_s = self._metrics.read()
        elapsed_s = self._stopwatch.elapsed_s()
        self.listener(
            Progressed(
                step=self.learner.spent.steps,
                epoch=self.learner.spent.epochs,
                progress=min(progress, 1.0),
                loss_nats=loss,
                bits_per_character=self._bits(loss),
                learning_rate=rate,
                gradient_norm=norm,
                characters_per_s=tokens_per_s / self.validator.tokens_per_character,
                elapsed_s=elapsed_s,
                remaining_s=elapsed_s * (1 - min(progress, 1.0)) / max(progress, 1e-9),
            )
        )

    def _evaluate(self, progress: float, *, is_end: bool = False) -> None:
        """Score the mean of the latest weights; at the end, when rates are low, both."""
        best_before = self._best_nats
        with self._average.in_place():
            nats = self._score()
        if is_end:
            nats = min(nats, self._score())
        if math.isfinite(nats):
            self._last_good = self.learner.snapshot()
        self.listener(
            Evaluated(
                step=self.learner.spent.steps,
                progress=min(progress, 1.0),
                nats_per_token=nats,
                bits_per_character=self._bits(nats),
                is_best=self._best_nats < best_before,
                elapsed_s=self._stopwatch.elapsed_s(),
            )
        )

    def _score(self) -> float:
        """Nats per token of the model as it is now; the best weights so far are kept."""
        nats = self.validator.score()
        if nats < self._best_nats:
            self._best_nats = nats
            self.validator.keep_best()
        return nats

    def _roll_back(self) -> None:
        step = self.learner.spent.steps
        self._rollbacks += 1
        self._rate_scale *= ROLLBACK_FACTOR
        self.learner.restore(self._last_good)
        self._average.forget()
        self._divergence = DivergenceDetector()
        self.listener(
            Noticed(
                text=f"The loss diverged at step {step:,}: went back to step "
                f"{self.learner.spent.steps:,} and goes on with {self._rate_scale:g} times "
                "the learning rate."
            )
        )

    def _give_up(self) -> str:
        if math.isinf(self._best_nats):
            raise Diverged(
                f"Training diverged {MAX_ROLLBACKS + 1} times, each time at a lower learning "
                "rate, before any weights could be kept. Try a --learning-rate a hundredth as high."
            )
        return "diverged"

    def _finish(self, reason: str) -> str:
        self._evaluate(self._progress(), is_end=True)
        return reason

    def _bits(self, nats_per_token: float) -> float:
        return nats_per_token * self.validator.tokens_per_character / math.log(2)
