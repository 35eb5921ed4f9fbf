"""Heartbeat: for how long a thread has had work and finished none of it."""

from collections.abc import Callable


class Heartbeat:
    """Written by one thread, read by any other, without a lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._silent_since: float | None = None

    def begin(self) -> None:
        """There is work."""
        if self._silent_since is None:
            self._silent_since = self._clock()

    def beat(self) -> None:
        """Work was done, or none is left."""
        self._silent_since = None

    @property
    def silent_s(self) -> float:
        """Seconds since there was work of which none was done, else 0. Failed work was not done."""
        since = self._silent_since  # read once: the thread may change it meanwhile
        return 0.0 if since is None else self._clock() - since
