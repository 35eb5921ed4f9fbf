"""How many steps to do in one go: as many as fit the time between two looks at the world."""

SMOOTHING = 0.2  # weight of the newest measurement


class Pace:
    """Turns a target time into a number of steps, from what steps took lately.

    Only the size of a piece of work depends on the clock, never its result.
    """

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self._measured: float | None = None

    @property
    def seconds_per_step(self) -> float:
        """0 before anything was measured."""
        return self._measured or 0.0

    def num_steps(self, target_s: float) -> int:
        """1 until something was measured."""
        if self._measured is None:
            return 1
        if self._measured * self._max_steps <= target_s:
            return self._max_steps
        return max(1, int(target_s / self._measured))

    def record(self, num_steps: int, seconds: float) -> None:
        newest = seconds / num_steps
        if self._measured is None:
            self._measured = newest
        self._measured += SMOOTHING * (newest - self._measured)
