"""Reads texts into states, in turns with other work of the engine."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from charlm_model.exact_sum import ExactSum
from charlm_model.snapshot import Snapshot
from charlm_server.engine.search import PrefixState
from charlm_server.engine.token_columns import Returns
from charlm_server.tasks.long_text_scoring import LongTextScorer
from charlm_server.tasks.search_series import SearchSeries


@dataclass(frozen=True, slots=True)
class Advanced:
    """A state after more of its text, and how probable that was, in nats."""

    snapshot: Snapshot
    total_logprob: float


async def read(
    series: SearchSeries,
    ids: list[int],
    before: Snapshot | None,
) -> Snapshot:
    """The state after these ids, which begin with the start id unless a state was before."""
    num_tokens = before.num_tokens + len(ids) if before is not None else len(ids) - 1

    def capture(start: PrefixState) -> Generator[None, None, Snapshot]:
        yield
        return Snapshot.of(start.state, start.logits_1V, num_tokens)

    snapshot = await series.ask(capture, num_steps=0, context_ids=ids, snapshot=before)
    assert isinstance(snapshot, Snapshot)
    return snapshot


async def advance(series: SearchSeries, before: Snapshot, ids: list[int]) -> Advanced:
    """Read and score ids after a state, which is not changed."""
    scorer = LongTextScorer(series, [], Returns(), before)
    nats = ExactSum()
    for ids_T in scorer.blocks(np.array(ids, dtype=np.int64)):
        nats.add((await scorer.score(ids_T)).columns.logprobs_T)
    return Advanced(scorer.snapshot(before.num_tokens + len(ids)), nats.value)
