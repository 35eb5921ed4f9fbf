"""Watches the model directory and loads new and replaced checkpoints."""

import asyncio
import contextlib
import logging

from charlm_server.errors.base import CharlmError
from charlm_server.errors.overload import Draining
from charlm_server.models.hot_swap import PREFIX, HotSwap
from charlm_server.models.model_directory import Version

logger = logging.getLogger(__name__)


class DirectoryWatch:
    """Looks every `seconds`, and at each `look_now`.

    A checkpoint that could not be loaded is tried again when one of its files changes; one that
    was deleted is served until it is unloaded.
    """

    def __init__(self, hot_swap: HotSwap, seconds: float | None) -> None:
        self._hot_swap, self._seconds = hot_swap, seconds
        self._seen: dict[str, Version] = {}
        self._asked = asyncio.Event()

    def check_now(self) -> None:
        self._asked.set()

    async def run(self) -> None:
        """Look until cancelled: at once if there is an interval, else at the first `look_now`."""
        if self._seconds is not None:
            self.check_now()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), self._seconds)
            self._asked.clear()
            await self.look()

    async def look(self) -> None:
        """Load the checkpoints that have changed since the last look."""
        versions = await asyncio.to_thread(self._versions)
        for name in sorted(versions):
            if versions[name] != self._seen.get(name):
                await self._load(name)
        self._seen = versions

    async def _load(self, name: str) -> None:
        if await asyncio.to_thread(self._hot_swap.is_served, name):
            return
        try:
            await self._hot_swap.load(name)
        except Draining:
            return
        except CharlmError as error:
            logger.error("%s%s stays as it is: %s", PREFIX, name, error)
        except Exception:
            logger.exception("%s%s stays as it is", PREFIX, name)

    def _versions(self) -> dict[str, Version]:
        root = self._hot_swap.root
        return {} if root is None else {name: root.version(name) for name in root.names()}
