"""Whether a thread that works in short pieces still does: how long the present piece lasts."""

from collections.abc import Callable
from types import TracebackType


class Pulse:
    """Entered for each piece of work by one thread, read by any other; never waits for a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_at: float | None = None
        self.num_pieces = 0  # finished so far

    def __enter__(self) -> None:
        self._began_at = self._clock()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._began_at = None
        self.num_pieces += 1

    @property
    def lasting_s(self) -> float:
        """Seconds since the present piece began; 0 between pieces."""
        began_at = self._began_at  # read once: the thread may end the piece meanwhile
        return 0.0 if began_at is None else self._clock() - began_at
