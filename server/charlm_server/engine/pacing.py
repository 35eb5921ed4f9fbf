"""How many tokens to read, or steps to decode, in one go, from what they cost lately."""

import math

KEPT = 0.85  # weight of a measurement when the next one comes
ROUND = 4  # chunks, the last of which is half as long, so that a and b can be estimated
MAX_GROWTH = 2
FORGETTING = 1.1  # by which the least seconds rise from chunk to chunk
SHORT = 8  # tokens; a chunk may always be as long as this


class ChunkPacer:
    """Chooses the length n of a chunk, which costs a + b n seconds, to fit a target time.

    If a alone is near the target, a chunk may take 2 a: chunks of one token would spend all time
    on a. Only the size of a piece of work depends on the clock, never its result.
    """

    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self._longest = SHORT  # lately
        self._least_s = math.inf  # lately
        self._num_chunks = 0
        self._weight = 0.0
        self._mean_num, self._mean_s = 0.0, 0.0
        self._variance, self._covariance = 0.0, 0.0  # of the lengths; of lengths and seconds

    @property
    def seconds_per_step(self) -> float:
        """Of a token in a long chunk; 0 before anything was measured."""
        return self._costs()[1]

    def num_steps(self, target_s: float) -> int:
        """1 until something was measured; at most twice the longest of the latest chunks."""
        if not self._num_chunks:
            return 1
        wanted = self._fitting(target_s)
        if self._num_chunks % ROUND:
            return wanted
        return wanted // 2 if wanted > 1 else min(2, self._max_steps)

    def record(self, num_steps: int, seconds: float) -> None:
        """Update the moments of the measurements; older ones count less."""
        self._weight = KEPT * self._weight + 1
        share = 1 / self._weight
        from_mean, from_mean_s = num_steps - self._mean_num, seconds - self._mean_s
        self._mean_num += share * from_mean
        self._mean_s += share * from_mean_s
        self._variance = (1 - share) * (self._variance + share * from_mean**2)
        self._covariance = (1 - share) * (self._covariance + share * from_mean * from_mean_s)
        self._longest = max(num_steps, self._longest // 2, SHORT)
        self._least_s = min(seconds, self._least_s * FORGETTING)
        self._num_chunks += 1

    def _fitting(self, target_s: float) -> int:
        fixed_s, each_s = self._costs()
        limit = min(self._max_steps, MAX_GROWTH * self._longest)
        budget_s = max(target_s - fixed_s, fixed_s)
        return limit if each_s * limit <= budget_s else max(1, int(budget_s / each_s))

    def _costs(self) -> tuple[float, float]:
        """Seconds of any chunk and of each token, neither below 0: the line of least squares.

        At most what the cheapest chunk took, because a disturbed measurement can suggest more.
        """
        if not self._num_chunks:
            return 0.0, 0.0
        slope_s = self._covariance / self._variance if self._variance else math.inf
        fixed_s = self._mean_s - max(0.0, slope_s) * self._mean_num
        fixed_s = min(max(0.0, fixed_s), self._least_s)
        return fixed_s, max(0.0, self._mean_s - fixed_s) / self._mean_num


SMOOTHING = 0.2  # weight of the newest measurement


class StepPacer:
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
