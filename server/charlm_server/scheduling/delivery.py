"""The way from the engine's thread to the calls: on the loop, a few calls at a time.

A call that is told something writes a message, which takes the loop longer than to be told. Were
all told at once, whoever calls meanwhile would wait until all had written.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from charlm_server.engine.job import Event

AT_ONCE = 8
# Times as long as the last delivery took: what can wait is kept for so long, so that most of the
# loop's time is left for calls that come and go. And what no reader should have to wait for.
KEPT_TIMES, MOST_KEPT_S = 10, 0.1
SMOOTHING = 0.3  # weight of the newest measurement


class Delivery:
    """Events in order, but for those that nothing of their own call can be in front of."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[Event] = deque()
        self._began_at: float | None = None
        self.kept_s = 0.0
        """For how long the thread should keep what can wait. Any thread may read it."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def hand_over(self, events: list[Event]) -> None:
        """Have the loop deliver them; for any thread."""
        self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            if event.is_first:
                event.deliver()
            else:
                self._waiting.append(event)
        if self._waiting and self._began_at is None:
            self._began_at = self._clock()
            self._go_on()

    def _go_on(self) -> None:
        for _ in range(min(AT_ONCE, len(self._waiting))):
            self._waiting.popleft().deliver()
        if self._waiting:
            self._loop.call_soon(self._go_on)
        else:
            self._measure()

    def _measure(self) -> None:
        assert self._began_at is not None
        wanted_s = min(KEPT_TIMES * (self._clock() - self._began_at), MOST_KEPT_S)
        self.kept_s += SMOOTHING * (wanted_s - self.kept_s)
        self._began_at = None
