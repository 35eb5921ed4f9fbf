"""How many open calls use a model: it is not unloaded while one does."""

import asyncio
import contextlib


class ModelUsage:
    """Counts the calls that use one model. For the event loop's thread only."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def begin(self) -> None:
        self.num_calls += 1
        self._unused.clear()

    def end(self) -> None:
        self.num_calls -= 1
        if not self.num_calls:
            self._unused.set()

    async def unused_within(self, seconds: float) -> bool:
        """Wait until no call uses the model; whether that came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._unused.wait(), seconds)
        return not self.num_calls
