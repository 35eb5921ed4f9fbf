"""Parts that wait for later ones, so that many streams are not many small messages."""

from typing import Any

from charlm_server.accumulator import Accumulator
from charlm_server.job import Event

# A message costs both ends about 0.15 ms, whatever is in it: so they take a sixth of the time.
_WAIT_PER_OUTPUT_S, _LONGEST_WAIT_S = 0.001, 0.1


class Held:
    """Belongs to the engine's thread. What somebody waits for goes at once, with all before it."""

    def __init__(self) -> None:
        self._events: dict[Accumulator[Any], list[Event]] = {}
        self._let_go_at = 0.0

    def let_go(self, events: list[Event], now: float, *, more_follows: bool) -> list[Event]:
        """Add events; returns those that are due, in the order of each output."""
        for event in events:
            self._events.setdefault(event.output, []).append(event)
        wait_s = min(_WAIT_PER_OUTPUT_S * len(self._events), _LONGEST_WAIT_S)
        if more_follows and now - self._let_go_at < wait_s:
            due = [event.output for event in events if not event.may_wait or event.output.is_full]
            return [each for output in due for each in self._events.pop(output, [])]
        self._let_go_at = now
        everything = [each for held in self._events.values() for each in held]
        self._events.clear()
        return everything
