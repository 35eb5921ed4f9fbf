"""The budget of a run: wall-clock time, a number of steps or a number of epochs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from charlm_training.errors import InvalidOption

Clock = Callable[[], float]

SECONDS_OF_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0}
SHORTEST_S, LONGEST_S = 1.0, 30 * 24 * 3600.0
# The smallest share of the wall-clock time that training keeps when evaluation is slow.
LEAST_TRAINING_SHARE = 0.5
# The share that evaluation usually takes, for planning; the run reserves what it measured.
USUAL_RESERVE = 0.1


@dataclass(frozen=True, slots=True)
class Spent:
    """Steps and epochs that a run has made so far."""

    steps: int
    epochs: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens of a step and of an epoch, and their speed, which is measured only when called."""

    tokens_per_step: float
    tokens_per_epoch: float
    measure_tokens_per_s: Callable[[], float]


class Budget(Protocol):
    """Measures the progress of a run: 0 at the start of training, 1 when it must stop."""

    def progress(self, spent: Spent) -> float: ...

    def affordable_tokens(self, throughput: Throughput) -> float:
        """About how many tokens can be trained on at this throughput."""

    def seconds(self) -> float | None:
        """The wall-clock time; None for a budget of steps or epochs."""

    def begin_training(self) -> None:
        """Planning is over: progress counts from here."""

    def reserve(self, seconds: float) -> None:
        """Seconds that evaluation and saving will take after training; the latest value counts."""

    def spent_s(self) -> tuple[float, float]:
        """Seconds since the start, and those of them before training; zeros without a clock."""

    def carry_over(self, spent_s: tuple[float, float]) -> None:
        """Continue from the `spent_s` of an earlier process."""


class CountedBudget:
    """Steps and epochs do not pass by themselves, so nothing is reserved."""

    __slots__ = ()

    def seconds(self) -> float | None:
        return None

    def begin_training(self) -> None:
        return

    def reserve(self, seconds: float) -> None:
        return

    def spent_s(self) -> tuple[float, float]:
        return 0.0, 0.0

    def carry_over(self, spent_s: tuple[float, float]) -> None:
        return


@dataclass(frozen=True, slots=True)
class StepBudget(CountedBudget):
    """A number of optimizer steps."""

    steps: int

    def progress(self, spent: Spent) -> float:
        return spent.steps / self.steps

    def affordable_tokens(self, throughput: Throughput) -> float:
        return self.steps * throughput.tokens_per_step


@dataclass(frozen=True, slots=True)
class EpochBudget(CountedBudget):
    """A number of passes over the training text."""

    epochs: float

    def progress(self, spent: Spent) -> float:
        return spent.epochs / self.epochs

    def affordable_tokens(self, throughput: Throughput) -> float:
        return self.epochs * throughput.tokens_per_epoch


@dataclass(slots=True)
class TimeBudget:
    """Seconds of wall-clock time, from the moment that the corpus is read."""

    total_s: float
    clock: Clock
    _reserved_s: float = field(init=False, default=0.0)
    _started: float = field(init=False)
    _training_since: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self._training_since = self.clock()

    def seconds(self) -> float | None:
        return self.total_s

    def remaining_s(self) -> float:
        return self.total_s - (self.clock() - self._started)

    def begin_training(self) -> None:
        self._training_since = self.clock()

    def reserve(self, seconds: float) -> None:
        self._reserved_s = min(seconds, self._after_probing_s() * (1 - LEAST_TRAINING_SHARE))

    def spent_s(self) -> tuple[float, float]:
        return self.clock() - self._started, self._training_since - self._started

    def carry_over(self, spent_s: tuple[float, float]) -> None:
        total_s, before_training_s = spent_s
        self._started = self.clock() - total_s
        self._training_since = self._started + before_training_s

    def progress(self, spent: Spent) -> float:
        del spent  # time passes whether or not steps are made
        available_s = max(self._after_probing_s() - self._reserved_s, 1e-9)
        return (self.clock() - self._training_since) / available_s

    def affordable_tokens(self, throughput: Throughput) -> float:
        return throughput.measure_tokens_per_s() * self.remaining_s() * (1 - USUAL_RESERVE)

    def _after_probing_s(self) -> float:
        return self.total_s - (self._training_since - self._started)


def parse_duration(text: str) -> float:
    """Seconds in '90', '90s', '3m' or '1h30m'."""
    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text)
    if parts is None or not text:
        raise InvalidOption(
            f"--budget is {text!r}; it must be a duration such as 90s, 3m or 1h30m."
        )
    amounts = [float(amount or 0) for amount in parts.groups()]
    seconds = sum(a * s for a, s in zip(amounts, SECONDS_OF_UNIT.values(), strict=True))
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise InvalidOption(f"--budget is {text!r}; it must be from 1 second to 30 days.")
    return seconds
