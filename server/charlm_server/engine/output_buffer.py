"""One call's answers on their way from the engine's thread to the coroutine that writes them.

Coalescing without timers: the engine adds, the coroutine takes all there is and writes it as one
message. A fast reader gets small chunks at once; a slow one gets bigger chunks and, past a bound,
its rows are parked while everyone else runs on. The engine never waits for a write.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar


class OutputPart(Protocol):
    """A piece of an answer that knows about how many bytes it will cost."""

    @property
    def num_bytes(self) -> int: ...


PartT = TypeVar("PartT", bound=OutputPart)


class OutputBuffer(Generic[PartT]):
    """Parts made but not yet written.

    Two counters need no lock because each has one writer: `_num_bytes_made` belongs to the engine's
    thread, `_num_bytes_taken` to the loop. Their difference is what waits, wherever it is.
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
        """Too much waits: make no more until the reader has caught up."""
        return self._num_bytes_made - self._num_bytes_taken > self._max_waiting_bytes

    @property
    def has_room(self) -> bool:
        """Half is gone: go on. Half, so that a row is not parked again at once."""
        return self._num_bytes_made - self._num_bytes_taken <= self._max_waiting_bytes // 2

    # --- the loop ---

    def add(self, part: PartT) -> None:
        self._parts.append(part)
        self._arrived.set()

    def close(self, error: Exception | None = None) -> None:
        """Nothing follows; an error is raised to the reader after the parts before it."""
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
        """What `take` returns, until the end."""
        while parts := await self.take(max_bytes):
            yield parts
