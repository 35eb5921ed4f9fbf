"""States returned in responses, so that the server need not keep them."""

import asyncio
from collections.abc import Iterable

from charlm.v1 import generation_pb2, scoring_pb2, state_pb2
from charlm_model import snapshot as snapshots
from charlm_model.snapshot import Provenance, Snapshot
from charlm_server.engine.scoring import ScoringJob
from charlm_server.engine.sequence import GenerationJob


async def add_end_states(
    chunks: Iterable[generation_pb2.OutputChunk], job: GenerationJob, provenance: Provenance
) -> None:
    """Adds the state to chunks that end an output, unless time ran out."""
    for chunk in chunks:
        if chunk.HasField("end") and chunk.index in job.end_states:
            snapshot = job.end_states.pop(chunk.index)
            chunk.end.state.CopyFrom(await _message_from(snapshot, provenance))


async def add_score_states(
    scores: list[scoring_pb2.Score], job: ScoringJob, provenance: Provenance
) -> None:
    """Adds the state to the scores of items that requested it."""
    for index, snapshot in job.end_states.items():
        scores[index].state.CopyFrom(await _message_from(snapshot, provenance))


async def _message_from(snapshot: Snapshot, provenance: Provenance) -> state_pb2.StateSnapshot:
    data = await asyncio.to_thread(snapshots.encode, snapshot, provenance)
    return state_pb2.StateSnapshot(data=data, num_tokens=snapshot.num_tokens)
