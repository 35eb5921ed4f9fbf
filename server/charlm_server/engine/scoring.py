"""Scoring jobs: the probability of given text, and the distribution of what comes next.

Legend: T tokens, V vocabulary.
"""

from dataclasses import dataclass, field

from charlm_model.snapshot import Snapshot
from charlm_server.engine.job import Job
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.token_columns import Float64s, Returns, TokenColumns


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringItem:
    """A continuation to score and what comes before it.

    The context begins with the start id unless it follows a snapshot.
    """

    context_ids: list[int]
    continuation_ids: list[int]
    snapshot: Snapshot | None = None
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

    def __post_init__(self) -> None:
        self.num_open_items = len(self.items)

    @property
    def num_tokens(self) -> int:
        return sum(len(item.context_ids) + len(item.continuation_ids) for item in self.items)

    @property
    def num_rows(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class NextDistribution:
    """The whole distribution of the next token."""

    logprobs_V: Float64s

    @property
    def num_bytes(self) -> int:
        return self.logprobs_V.nbytes


@dataclass(kw_only=True, eq=False)
class NextDistributionJob(Job):
    """What comes after a text? The context begins with the start id, or follows a snapshot."""

    context_ids: list[int]
    output: OutputBuffer[NextDistribution]
    snapshot: Snapshot | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.context_ids)

    @property
    def num_rows(self) -> int:
        return 0
