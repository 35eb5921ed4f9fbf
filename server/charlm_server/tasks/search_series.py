"""The searches of one call, one after the other: of compression and of long texts."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any

from charlm_model.snapshot import Snapshot
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.calls.call import Call
from charlm_server.engine.search import PrefixState, SearchJob
from charlm_server.errors.overload import QueueFull
from charlm_server.models.registry import LoadedModel

Search = Callable[[PrefixState], Generator[None, None, Any]]


class SearchSeries:
    """Runs searches one after the other, each in turns with other work of the engine."""

    def __init__(self, model: LoadedModel, deadline: float, call: Call | None = None) -> None:
        self.model = model
        self._deadline, self._call = deadline, call
        self._was_admitted = False

    async def ask(
        self,
        search: Search,
        *,
        num_steps: int,
        context_ids: Sequence[int] = (END_OF_TEXT_ID,),
        snapshot: Snapshot | None = None,
    ) -> Any:
        """The result of a search after a context, which is read after the snapshot, if any.

        Raises QueueFull for the first search only: later ones wait for room in the queue.
        """
        while True:
            job = SearchJob(
                context_ids=list(context_ids),
                num_steps=num_steps,
                search=search,
                snapshot=snapshot,
                output=self.model.output_buffer(),
                deadline=self._deadline,
            )
            try:
                async with self.model.scheduler.run(job, self._call):
                    self._was_admitted = True
                    [answer] = await job.output.take(1)
                return answer.value
            except QueueFull as full:
                if not self._was_admitted:
                    raise
                await asyncio.sleep(full.retry_after_s)
