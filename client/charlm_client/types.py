"""Parameters and results of calls, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

ConstraintMode = Literal["local_mask", "rejection", "smc"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """Restricts whole outputs: exactly one of `regex`, `choices` and `allowed_characters`.

    `local_mask` masks the impossible tokens at each step. `rejection` samples exactly from the
    model's distribution given the constraint, and `smc` (sequential Monte Carlo) approximately.
    """

    regex: str | None = None
    choices: tuple[str, ...] = ()
    allowed_characters: str | None = None
    mode: ConstraintMode = "local_mask"
    num_particles: int | None = None
    """Number of particles of `smc`, from 1 to 256. None means 16."""
    max_attempts: int | None = None
    """Most outputs that `rejection` tries, from 1 to 10000. None means 100."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is drawn. None means the model's default."""

    temperature: float | None = None
    """Divides the logits; from 0 to 100. 0 takes the most probable token."""
    top_k: int | None = None
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float | None = None
    """Nucleus sampling: keep the smallest set with this total probability, above 0, at most 1."""
    min_p: float | None = None
    """Drop tokens less probable than this fraction, from 0 to 1, of the most probable one."""
    typical_p: float | None = None
    """Keep the tokens of surprisal nearest the entropy with this total probability, at most 1."""
    repetition_penalty: float | None = None
    """Divides positive and multiplies negative log-probs of tokens that occurred; at most 10."""
    presence_penalty: float | None = None
    """Subtracted, in nats, from tokens that occurred; from -100 to 100."""
    frequency_penalty: float | None = None
    """Subtracted, in nats, for each time that a token occurred; from -100 to 100."""
    penalty_window: int | None = None
    """Number of latest tokens, prompt included, that the penalties count; from 0 to 65536."""
    seed: int | None = None
    """From 0 to 2**64 - 1; the same seed gives the same text. None: the server draws one."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Nats added to the log-probs of single token ids."""
    constraint: Constraint | None = None
    """Restriction of the whole output."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopping:
    """When an output ends. None means the server's default."""

    max_new_tokens: int | None = None
    """From 1 to the model's `max_new_tokens`. None means 256."""
    stop_sequences: tuple[str, ...] = ()
    """Texts that end the output; none of them may be empty."""
    include_stop_sequence: bool | None = None
    """Keep the matched stop sequence in the output."""
    ignore_end_of_text: bool | None = None
    """Continue after an end-of-text token."""
    max_time_s: float | None = None
    """Time limit in seconds; the output then ends with TIME_LIMIT."""


@dataclass(frozen=True, slots=True)
class After:
    """In place of a text: continue after a kept state (its name) or an exported one (bytes)."""

    state: str | bytes
    text: str = ""
    """Text after the state; only for the prompt of `generate` and `stream_generate`."""


class FinishReason(Enum):
    """Why an output ended. UNSPECIFIED is a reason that this client does not know."""

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
    """Empty unless the reason is STOP_SEQUENCE."""
    num_new_tokens: int
    total_logprob: float
    """Log-prob of all tokens of the output under the model, in nats."""
    log_evidence: float | None = None
    """Estimated log-probability of the constraint, in nats; only with smc."""
    effective_sample_size: float | None = None
    """How many independent samples the particles are worth; only with smc."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A part of one output of a stream: new characters, their bytes and their tokens.

    Per-token tuples have one entry for each of `token_ids`; log-probs are in nats.
    """

    index: int
    """Number of the output, from 0."""
    text: str
    """Complete characters only; the bytes of an incomplete one come with a later chunk."""
    data: bytes
    """The bytes of the tokens."""
    first_position: int
    """Index of the first of `token_ids` in the output."""
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Under the model."""
    sampling_logprobs: tuple[float, ...]
    """Under the distribution that was sampled from, after bias, penalties and filters."""
    resume_token: bytes
    """Continues the output at another server; empty where resuming is off."""
    end: OutputEnd | None
    """Set in the last chunk of the output."""
    constraint_log_masses: tuple[float, ...] = ()
    """Log of the probability that the constraint allowed, for each token; empty without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamHeader:
    """Values that hold for a whole stream."""

    model: str
    model_digest: str
    numerics_id: str
    seed: int
    num_prompt_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One complete output. Per-token tuples have one entry a token; log-probs are in nats."""

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
    """Identifies the arithmetic: equal digests and equal numerics give equal bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What a score has for each token besides log-probs, ranks and entropies."""

    top_k: int = 0
    """This many of the most probable tokens."""
    distributions: bool = False
    """The log-probs of all tokens of the vocabulary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopToken:
    """One candidate for the next token. The end of text has no bytes."""

    token_id: int
    data: bytes
    """Its bytes, which may be part of a character."""
    text: str
    """The bytes as text; U+FFFD replaces bytes that are not a whole character."""
    logprob: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The probability of one text. Per-token tuples have one entry a token, or are empty."""

    total_logprob: float
    """In nats."""
    num_tokens: int
    num_characters: int
    num_bytes: int
    bits_per_character: float
    """Mean surprisal of a character."""
    bits_per_byte: float
    """Mean surprisal of a byte."""
    is_greedy: bool
    """Whether every token was the most probable one."""
    token_ids: tuple[int, ...]
    character_offsets: tuple[int, ...]
    """Where each token begins in the text, in characters."""
    logprobs: tuple[float, ...]
    """In nats."""
    ranks: tuple[int, ...]
    """Rank of each token; 1 is the most probable."""
    entropies: tuple[float, ...]
    """Of the distribution of each token, in nats."""
    top: tuple[tuple[TopToken, ...], ...]
    """The most probable tokens at each position."""
    distributions: tuple[tuple[float, ...], ...]
    """All log-probs at each position, by token id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NextDistribution:
    """The distribution of the next token: all log-probs by token id, and the best tokens."""

    logprobs: tuple[float, ...]
    top: tuple[TopToken, ...]
    entropy: float
    """In nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """Quality of a model on its validation text, by one protocol of its training report."""

    protocol: str
    nats_per_character: float
    bits_per_character: float
    bits_per_byte: float
    num_characters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """A mixture: its kind (linear, log_linear or online), the models and their weights."""

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
    """Most tokens that a step conditions on; 0 means no limit."""
    state_size_bytes: int
    max_new_tokens: int
    max_outputs: int
    numerics_id: str
    is_batch_invariant: bool
    evaluations: tuple[EvaluationResult, ...]
    mixture: Mixture | None = None
    """Set if the model is a mixture of others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """The tokens of one text, and the offset of each in it, in characters."""

    token_ids: tuple[int, ...]
    character_offsets: tuple[int, ...]
