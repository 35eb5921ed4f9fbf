"""What one asks with and what one gets: plain values, no messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

ConstraintMode = Literal["local_mask", "rejection", "smc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """Exactly one of `regex`, `choices` and `allowed_characters`, and how it acts.

    `local_mask` excludes impossible tokens step by step; `rejection` and `smc` sample from the
    model's distribution given that the whole output is in the language, exactly or nearly so.
    """

    regex: str | None = None
    choices: tuple[str, ...] = ()
    allowed_characters: str | None = None
    mode: ConstraintMode = "local_mask"
    num_particles: int | None = None
    """For smc, in [1, 256]. None means the server's default."""
    max_attempts: int | None = None
    """For rejection, in [1, 10000]. None means the server's default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is drawn. None means the model's default."""

    temperature: float | None = None
    """In [0, 100]; 0 takes the most probable token."""
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    penalty_window: int | None = None
    seed: int | None = None
    """The same seed gives the same text; the server draws and tells one when there is none."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    constraint: Constraint | None = None
    """A language that the whole output must be in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopping:
    """When an output ends. None means the server's default."""

    max_new_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    include_stop_sequence: bool | None = None
    ignore_end_of_text: bool | None = None
    max_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class After:
    """In place of a text: go on after a kept state, by its name, or after an exported one."""

    state: str | bytes
    text: str = ""
    """What follows the state, where a prompt is asked for."""


class FinishReason(Enum):
    """Why an output ended; UNSPECIFIED for a reason newer than this client."""

    UNSPECIFIED = "unspecified"
    LENGTH = "length"
    STOP_SEQUENCE = "stop_sequence"
    END_OF_TEXT = "end_of_text"
    CONSTRAINT_COMPLETE = "constraint_complete"
    TIME_LIMIT = "time_limit"
    DRAINED = "drained"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputEnd:
    """How an output ended."""

    finish_reason: FinishReason
    matched_stop_sequence: str
    num_new_tokens: int
    total_logprob: float
    log_evidence: float | None = None
    """Estimated log-probability of the constraint, in nats; only with smc."""
    effective_sample_size: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of one output of a stream: complete characters, exact bytes, and their tokens."""

    index: int
    text: str
    data: bytes
    first_position: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    sampling_logprobs: tuple[float, ...]
    resume_token: bytes
    end: OutputEnd | None
    constraint_log_masses: tuple[float, ...] = ()
    """Log of the probability that the constraint left, for every token; empty without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamHeader:
    """What holds for a whole stream."""

    model: str
    model_digest: str
    numerics_id: str
    seed: int
    num_prompt_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One whole output; logprobs are natural logarithms under the model."""

    index: int
    text: str
    data: bytes
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    end: OutputEnd
    constraint_log_masses: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """All outputs of one call."""

    outputs: tuple[Output, ...]
    seed: int
    num_prompt_tokens: int
    model: str
    model_digest: str
    numerics_id: str
    """The arithmetic: equal digests and equal numerics are equal bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What a score tells of each place beside log-probs, ranks and entropies."""

    top_k: int = 0
    """So many of the most probable tokens, whichever came."""
    distributions: bool = False
    """The log-probs of all tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopToken:
    """One candidate for the next token. The end of text has no bytes."""

    token_id: int
    data: bytes
    """Its exact bytes, which may be a part of a character."""
    text: str
    """The bytes as text; U+FFFD stands for what is no whole character."""
    logprob: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How probable one text is; per-token tuples have an entry for each token."""

    total_logprob: float
    num_tokens: int
    num_characters: int
    num_bytes: int
    bits_per_character: float
    bits_per_byte: float
    is_greedy: bool
    token_ids: tuple[int, ...]
    character_offsets: tuple[int, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    entropies: tuple[float, ...]
    top: tuple[tuple[TopToken, ...], ...]
    """The most probable tokens at each place, whichever came."""
    distributions: tuple[tuple[float, ...], ...]
    """All log-probs at each place, by token id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NextDistribution:
    """The distribution of the next token: all log-probs by token id, and the best of them."""

    logprobs: tuple[float, ...]
    top: tuple[TopToken, ...]
    entropy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """A model's figures over its validation text."""

    protocol: str
    nats_per_character: float
    bits_per_character: float
    bits_per_byte: float
    num_characters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Which models answer as one: linear, log_linear or online, and their weights."""

    kind: str
    models: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A loaded model."""

    name: str
    digest: str
    family: str
    num_parameters: int
    vocabulary_kind: str
    vocab_size: int
    unit: str
    context_length: int
    state_size_bytes: int
    max_new_tokens: int
    max_outputs: int
    numerics_id: str
    is_batch_invariant: bool
    evaluations: tuple[EvaluationResult, ...]
    mixture: Mixture | None = None
    """What it is mixed of, if it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """One text's tokens, and where each begins in it (in characters)."""

    token_ids: tuple[int, ...]
    character_offsets: tuple[int, ...]
