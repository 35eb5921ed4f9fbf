"""The parameters of a generation, and the pieces of its output."""

import enum
import hashlib
from dataclasses import dataclass

from charlm_model.constraints.constraint import Constraint
from charlm_model.constraints.guide import Guide
from charlm_server.engine.stop_sequences import StopAutomaton
from charlm_server.engine.token_columns import (
    TokenColumns,
)


class FinishReason(enum.Enum):
    """Why a continuation ended."""

    LENGTH = enum.auto()
    STOP = enum.auto()
    END_OF_TEXT = enum.auto()
    CONSTRAINT_COMPLETE = enum.auto()
    TIME_LIMIT = enum.auto()
    DRAINED = enum.auto()

    @property
    def is_cut_short(self) -> bool:
        """Whether time ended it. Then the text that was held back is shown too, which may be more
        than the whole output would show."""
        return self in (FinishReason.TIME_LIMIT, FinishReason.DRAINED)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstraintSearch:
    """How constrained outputs are sampled whole: by Monte Carlo or by rejection."""

    is_monte_carlo: bool
    num: int  # particles, or attempts at most
    num_together: int  # attempts made together; it changes only the time


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopping:
    """What ends a continuation, beside the deadline of its job."""

    max_new_tokens: int
    stops: StopAutomaton | None = None
    include_stop: bool = False
    ignore_end_of_text: bool = False
    constraint: Constraint | None = None  # a language that the output must be in

    search: ConstraintSearch | None = None  # how to draw given the constraint; None is step by step

    def new_guide(self, *, fits_length: bool = True) -> Guide:
        """For one output, from its start."""
        assert self.constraint is not None
        return Guide(
            self.constraint,
            self.max_new_tokens,
            ignores_end_of_text=self.ignore_end_of_text,
            fits_length=fits_length,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """How a continuation ended, and what it took. Times are in seconds."""

    reason: FinishReason
    matched_stop: bytes | None
    num_new_tokens: int  # all that were sampled, those that are not shown included
    total_logprob: float  # of the tokens shown, exactly summed
    queued_s: float
    prefill_s: float
    decode_s: float
    log_evidence: float | None = None  # of the constraint, estimated, in nats
    effective_sample_size: float | None = None


@dataclass(frozen=True, slots=True)
class ShownCounts:
    """How much of one output has been shown, in this stream and in those that it resumes."""

    num_tokens: int = 0
    num_bytes: int = 0
    num_characters: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """What one tick added to one continuation; the last one alone has a finish."""

    index: int
    shown: ShownCounts  # after this delta
    data: bytes
    text: str
    columns: TokenColumns
    num_bytes: int
    finish: Finish | None = None
    is_last: bool = False  # nothing follows for any output

    @property
    def position(self) -> int:
        """Of its first token in the continuation."""
        return self.shown.num_tokens - len(self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """How much of one output the client has received; none of it is sent again."""

    received_ids: list[int]
    num_bytes: int
    num_characters: int
    has_ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a stream was made of: its token fits this and nothing else."""

    model: bytes  # 8 bytes, of the checkpoint and the arithmetic
    request: bytes  # 8 bytes, of everything asked that changes the text
    seed: int

    @classmethod
    def of(cls, model: str, request: bytes, seed: int) -> "Origin":
        return cls(
            model=short_digest(model.encode(), 8), request=short_digest(request, 8), seed=seed
        )


def short_digest(data: bytes, num_bytes: int) -> bytes:
    return hashlib.sha256(data).digest()[:num_bytes]
