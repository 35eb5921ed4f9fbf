"""Scoring jobs: the probability of given text, and the distribution of what comes next.

Legend: T tokens, V vocabulary.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from charlm_model.sampling.draw import logprobs_from
from charlm_model.snapshot import Snapshot
from charlm_model.state import State
from charlm_server.engine.job import Job, JobEngine, Outbox
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.readers import PrefixReader
from charlm_server.engine.token_columns import Float64s, Returns, TokenColumns, columns_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringItem:
    """A continuation to score and what comes before it.

    The context begins with the start id unless it follows a snapshot.
    """

    context_ids: list[int]
    continuation_ids: list[int]
    snapshot: Snapshot | None = None
    returns_state: bool = False
    num_text_bytes: int | None = None
    """Of the text as it was sent, which may have unknown characters; None: of its tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorePart:
    """Scores of some tokens of one item, in order; parts of different items may mix."""

    item: int
    position: int
    columns: TokenColumns
    is_greedy: bool  # whether each was the most probable token
    num_bytes: int


@dataclass(kw_only=True, eq=False)
class ScoringJob(Job):
    """Some texts to score."""

    items: list[ScoringItem]
    returns: Returns
    bytes_per_token: int
    output: OutputBuffer[ScorePart]
    num_open_items: int = field(init=False)
    end_states: dict[int, Snapshot] = field(default_factory=dict)  # by index, before the end

    def __post_init__(self) -> None:
        self.num_open_items = len(self.items)

    def begin(self, engine: JobEngine) -> None:
        for index in range(len(self.items)):
            lane = engine.prefill if self.items[index].returns_state else engine.scoring
            lane.add(ItemReader(self, index, engine.outbox), self.caller)

    @property
    def num_tokens(self) -> int:
        return sum(len(item.context_ids) + len(item.continuation_ids) for item in self.items)

    @property
    def num_rows(self) -> int:
        return 0


class ItemReader:
    """Reads one item; every token of the continuation is scored by what precedes it."""

    def __init__(self, job: ScoringJob, index: int, outbox: Outbox) -> None:
        item = job.items[index]
        self._job, self._index, self._outbox = job, index, outbox
        self.snapshot = item.snapshot
        self._targets = np.array(item.continuation_ids, dtype=np.int64)
        self._first = len(item.context_ids) - 1  # the token after which the first target stands
        self._num_tokens = -1 if item.snapshot is None else item.snapshot.num_tokens
        self._ids = item.context_ids + item.continuation_ids[: None if item.returns_state else -1]
        if not item.continuation_ids:
            self._ids = item.context_ids[:1]  # nothing to score, so nothing worth reading

    @property
    def ids(self) -> list[int]:
        return self._ids

    @property
    def is_over(self) -> bool:
        return self._job.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        skipped = max(self._first - start, 0)
        if skipped >= len(logits_TV) or not len(self._targets):
            return  # all of it is context
        position = start + skipped - self._first
        ids_T = self._targets[position : position + len(logits_TV) - skipped]
        if not len(ids_T):
            return  # after the last target
        logits_TV = logits_TV[skipped : skipped + len(ids_T)]
        columns = columns_of(logits_TV, ids_T, self._job.returns)
        part = ScorePart(
            item=self._index,
            position=position,
            columns=columns,
            is_greedy=bool((logits_TV.numpy().argmax(axis=-1) == ids_T).all()),
            num_bytes=len(columns) * self._job.bytes_per_token,
        )
        self._outbox.put(self._job, part)

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        if state is not None:
            num_tokens = self._num_tokens + len(self._ids)
            self._job.end_states[self._index] = Snapshot.of(state, logits_1V, num_tokens)
        self._job.num_open_items -= 1
        if self._job.num_open_items == 0:
            self._outbox.close(self._job)


@dataclass(frozen=True, slots=True)
class NextDistribution:
    """The whole distribution of the next token."""

    logprobs_V: Float64s

    @property
    def num_bytes(self) -> int:
        return self.logprobs_V.nbytes


@dataclass(kw_only=True, eq=False)
class NextDistributionJob(Job):
    """The distribution of the next token. The context begins with the start id or a snapshot."""

    context_ids: list[int]
    output: OutputBuffer[NextDistribution]
    snapshot: Snapshot | None = None

    def begin(self, engine: JobEngine) -> None:
        def answer(_state: State | None, logits_1V: Tensor) -> None:
            part = NextDistribution(logprobs_from(logits_1V.numpy())[0])
            engine.outbox.put(self, part, closes=True)

        engine.scoring.add(PrefixReader(self, self.context_ids, self.snapshot, answer), self.caller)

    @property
    def num_tokens(self) -> int:
        return len(self.context_ids)

    @property
    def num_rows(self) -> int:
        return 0
