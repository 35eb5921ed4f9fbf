"""Whether a thread that works in short pieces gets anywhere: how long ago it last did."""

from collections.abc import Callable


class Heartbeat:
    """Beaten by one thread, read by any other; never waits for a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._silent_since: float | None = None

    def begin(self) -> None:
        """There is something to do."""
        if self._silent_since is None:
            self._silent_since = self._clock()

    def beat(self) -> None:
        """Something was done, or nothing is left to do."""
        self._silent_since = None

    @property
    def silent_s(self) -> float:
        """Seconds since there was something to do of which nothing has been done; 0 if all is
        well. A piece of work that failed has done nothing."""
        since = self._silent_since  # read once: the thread may change it meanwhile
        return 0.0 if since is None else self._clock() - since
