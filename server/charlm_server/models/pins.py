"""Which calls may still use a model: a call that has looked it up keeps it until it ends."""

import asyncio
import contextlib
from typing import Any


class Pins:
    """The tasks that hold on to one model. Of the loop alone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    def pin(self) -> None:
        """For as long as the present task lasts; gRPC runs every call in a task of its own."""
        task = _present_task()
        if task is None or task in self._tasks:
            return
        self._tasks.add(task)
        self._nobody.clear()
        task.add_done_callback(self._unpin)

    @property
    def num(self) -> int:
        return len(self._tasks)

    async def nobody_within(self, seconds: float) -> bool:
        """Wait until no task holds on; whether that came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nobody.wait(), seconds)
        return not self._tasks

    def _unpin(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._nobody.set()


def _present_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
