"""States that come with an answer, so that the server need not keep them.

They are read anew after the answer is known: reading has the same bits as what was done before.
"""

import asyncio
from collections.abc import Iterable

from charlm.v1 import generation_pb2, state_pb2
from charlm_model import snapshot as snapshots
from charlm_model.snapshot import Snapshot
from charlm_server.engine.sequence import GenerationJob
from charlm_server.tasks.search_series import SearchSeries
from charlm_server.tasks.state_reading import read


async def state_after(
    series: SearchSeries, ids: list[int], before: Snapshot | None
) -> state_pb2.StateSnapshot:
    """The state after these ids, as it is exported."""
    snapshot = await read(series, ids, before)
    data = await asyncio.to_thread(snapshots.encode, snapshot, series.model.provenance)
    return state_pb2.StateSnapshot(data=data, num_tokens=snapshot.num_tokens)


class EndStates:
    """Gives every output of a job the state after it, except where time cut it short."""

    def __init__(self, series: SearchSeries, job: GenerationJob) -> None:
        self._series, self._job = series, job
        self._ids = [[*job.prompt_ids, *each.received_ids] for each in job.sequences]

    async def add_to(self, chunks: Iterable[generation_pb2.OutputChunk]) -> None:
        """The chunks are all that is told of each output since the last time."""
        for chunk in chunks:
            ids = self._ids[chunk.index]
            ids += chunk.tokens.token_ids
            if chunk.HasField("end") and not self._is_cut_short(chunk.index):
                state = await state_after(self._series, ids, self._job.snapshot)
                chunk.end.state.CopyFrom(state)

    def _is_cut_short(self, index: int) -> bool:
        finish = self._job.sequences[index].finish
        return finish is not None and finish.reason.is_cut_short
