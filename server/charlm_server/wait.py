"""How long a newcomer will wait, from how fast others began lately."""

from collections import deque

NUM_REMEMBERED = 32


class WaitEstimate:
    """Little's law over the latest beginnings: those ahead, divided by the rate they leave at."""

    def __init__(self) -> None:
        self._begun_at: deque[float] = deque(maxlen=NUM_REMEMBERED)

    def record(self, now: float) -> None:
        """A job began that had to wait."""
        self._begun_at.append(now)

    def seconds_for(self, num_ahead: int, now: float) -> float:
        """Until the one behind `num_ahead` others begins; 0 while too little is known."""
        if len(self._begun_at) < 2:
            return 0.0
        return (num_ahead + 1) * (now - self._begun_at[0]) / (len(self._begun_at) - 1)
