"""Histograms of durations, cheap enough for every message."""

from bisect import bisect_left
from collections.abc import Sequence

# From half a millisecond, about a character, to a minute, which no healthy call takes.
BOUNDS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip


class Histogram:
    """Counts between fixed bounds. One thread adds, any may read."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # counts[i]: above bounds[i - 1], up to bounds[i]
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
