"""Delivers results on the event loop, first tokens first, in groups of eight.

A call that gets a part writes a message, which takes the loop longer than the delivery. In groups,
so that calls which arrive meanwhile do not wait until all messages are written.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from charlm_server.engine.job import Event

AT_ONCE = 8
# Later tokens are collected for KEPT_TIMES as long as deliveries take, which leaves most of the
# loop's time to other work, but for at most MOST_KEPT_S.
KEPT_TIMES, MOST_KEPT_S = 10, 0.1
SMOOTHING = 0.3  # weight of the newest measurement


class Delivery:
    """Delivers events in order, but the first of each call at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[Event] = deque()
        self._began_at: float | None = None
        self.kept_s = 0.0
        """For how long the engine should collect later tokens. Any thread may read it."""

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def hand_over(self, events: list[Event]) -> None:
        """Deliver them on the loop; any thread may call."""
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
