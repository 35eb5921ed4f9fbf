"""The learning rate over the progress of a run."""

import math
from dataclasses import dataclass

from charlm_training.errors import InvalidOption


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """A short warm-up, then half a cosine down to nearly zero.

    Progress is the spent fraction of the budget, whether that is counted in seconds, steps or
    epochs, so every run ends annealed however fast the machine turned out to be.
    """

    peak: float
    warmup: float = 0.02
    final_share: float = 0.01

    def __post_init__(self) -> None:
        check_rate(self.peak)

    def rate(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1]."""
        if progress < self.warmup:
            return self.peak * max(progress / self.warmup, self.final_share)
        remaining = (1 - min(progress, 1.0)) / (1 - self.warmup)
        cosine = 0.5 * (1 - math.cos(math.pi * remaining))
        return self.peak * (self.final_share + (1 - self.final_share) * cosine)


def check_rate(peak: float) -> None:
    """Raises InvalidOption for a rate out of range."""
    if not 0 < peak <= 1:
        raise InvalidOption(f"--learning-rate is {peak}; it must be above 0 and at most 1.")
