"""What a trainer measures while it trains: means over steps, shares of the budget, divergence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from charlm_training.budget import Clock
from charlm_training.step.learner import StepResult

# Smoothed loss this far above its own minimum is no noise: it is on its way up.
DIVERGED_NATS = 1.0
SMOOTHING = 0.05


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
class DivergenceDetector:
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
class StepMetrics:
    """Means over the steps since the last reading."""

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
