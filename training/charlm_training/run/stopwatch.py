"""Seconds since the start of a run, over all processes that worked on it one after another."""

from __future__ import annotations

from dataclasses import dataclass, field

from charlm_training.budget import Clock


@dataclass(slots=True)
class Stopwatch:
    """Starts when it is made."""

    clock: Clock
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def elapsed_s(self) -> float:
        return self.clock() - self._began

    def carry_over(self, elapsed_s: float) -> None:
        """Add the seconds of an earlier process."""
        self._began -= elapsed_s
