"""One call's output, from the engine's thread to the coroutine that writes it.

Coalescing without timers: the engine adds parts, and the coroutine takes all there are and writes
them as one message. A fast client gets small chunks at once, a slow one larger chunks. Past a bound
there is backpressure: its rows are parked while other calls run on. The engine never waits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar


class OutputPart(Protocol):
    """A piece of an answer; `num_bytes` is about what it takes in a message."""

    @property
    def num_bytes(self) -> int: ...


PartT = TypeVar("PartT", bound=OutputPart)


class OutputBuffer(Generic[PartT]):
    """Parts made but not yet written.

    Two counters need no lock because each has one writer: `_num_bytes_made` belongs to the engine's
    thread, `_num_bytes_taken` to the loop. Their difference is what was not taken yet.
    """

    def __init__(self, max_waiting_bytes: int, on_room: Callable[[], None]) -> None:
        self._max_waiting_bytes = max_waiting_bytes
        self._on_room = on_room
        self._num_bytes_made = 0
        self._num_bytes_taken = 0
        self._parts: deque[PartT] = deque()
        self._arrived = asyncio.Event()
        self._is_closed = False
        self._error: Exception | None = None

    # --- the engine's thread ---

    def count(self, part: PartT) -> None:
        """Account for a part that is about to be handed over."""
        self._num_bytes_made += part.num_bytes

    @property
    def is_full(self) -> bool:
        """Backpressure begins: make no more until the client has caught up."""
        return self._num_bytes_made - self._num_bytes_taken > self._max_waiting_bytes

    @property
    def has_room(self) -> bool:
        """Backpressure ends: at half the bound, so that a row is not parked again at once."""
        return self._num_bytes_made - self._num_bytes_taken <= self._max_waiting_bytes // 2

    # --- the loop ---

    def add(self, part: PartT) -> None:
        self._parts.append(part)
        self._arrived.set()

    def close(self, error: Exception | None = None) -> None:
        """Nothing follows; an error is raised by `take` after the parts before it."""
        self._is_closed, self._error = True, self._error or error
        self._arrived.set()

    async def take(self, max_bytes: int) -> list[PartT]:
        """All parts there are, at least one and then up to `max_bytes`; [] at the end."""
        while not self._parts:
            if self._is_closed:
                if self._error is not None:
                    raise self._error
                return []
            self._arrived.clear()
            await self._arrived.wait()
        return self._take_now(max_bytes)

    def _take_now(self, max_bytes: int) -> list[PartT]:
        had_room = self.has_room
        taken = [self._parts.popleft()]
        num_bytes = taken[0].num_bytes
        while self._parts and num_bytes + self._parts[0].num_bytes <= max_bytes:
            taken.append(self._parts.popleft())
            num_bytes += taken[-1].num_bytes
        self._num_bytes_taken += num_bytes
        if self.has_room and not had_room:
            self._on_room()
        return taken

    async def batches(self, max_bytes: int) -> AsyncIterator[list[PartT]]:
        """The results of `take`, until the end."""
        while parts := await self.take(max_bytes):
            yield parts
