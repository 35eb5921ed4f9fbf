"""Gap filling and top continuations: values, and their conversion to and from messages."""

from dataclasses import dataclass

from charlm.v1 import inference_pb2
from charlm_client.types import After
from charlm_client.wire.to_proto import (
    UINT32,
    UINT64,
    checked,
    context_message,
    model_name,
    naming_field,
    unknown_policy,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Two texts with a gap of `length` tokens between them. None means the server's default."""

    left: str | After
    right: str
    length: int
    """From 1 to 64. Gaps of one or two tokens are enumerated exactly, longer ones are sampled."""
    max_fillings: int | None = None
    num_particles: int | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Filling:
    """One way to fill a gap."""

    text: str
    token_ids: tuple[int, ...]
    posterior: float
    """Its probability given both sides."""
    total_logprob: float
    """Log-prob of the filling and the right text given the left one, in nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilledGap:
    """The most probable fillings, the best first."""

    fillings: tuple[Filling, ...]
    is_exact: bool
    log_evidence: float
    """Log-prob of the right text given the left one, summed over all fillings, in nats."""
    effective_sample_size: float | None
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Continuation:
    """One continuation; the last of its tokens may be the end of text, which has no characters."""

    text: str
    token_ids: tuple[int, ...]
    total_logprob: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TopContinuations:
    """The most probable continuations, the best first, and a bound on all others."""

    continuations: tuple[Continuation, ...]
    is_complete: bool
    """Whether no other continuation is more probable than the last one listed."""
    missing_logprob_bound: float
    """No continuation outside the list has a higher log-prob than this, in nats."""
    num_steps: int


def gap_message(gap: Gap, *, model: str, replace_unknown: bool) -> inference_pb2.FillGapRequest:
    message = inference_pb2.FillGapRequest(
        model=model_name(model),
        left=context_message(gap.left, "left"),
        right=checked(gap.right, "right"),
        unknown_characters=unknown_policy(replace_unknown),
    )
    with naming_field("gap_length", gap.length, UINT32):
        message.gap_length = gap.length
    for name, allowed in (("max_fillings", UINT32), ("num_particles", UINT32), ("seed", UINT64)):
        value = getattr(gap, name)
        if value is not None:
            with naming_field(name, value, allowed):
                setattr(message, name, value)
    return message


def filled_gap_from(message: inference_pb2.FillGapResponse) -> FilledGap:
    return FilledGap(
        fillings=tuple(
            Filling(
                text=filling.text,
                token_ids=tuple(filling.token_ids),
                posterior=filling.posterior,
                total_logprob=filling.total_logprob,
            )
            for filling in message.fillings
        ),
        is_exact=message.is_exact,
        log_evidence=message.log_evidence,
        effective_sample_size=message.effective_sample_size
        if message.HasField("effective_sample_size")
        else None,
        seed=message.seed,
    )


def top_message(
    prompt: str | After,
    *,
    model: str,
    length: int,
    num: int,
    max_steps: int | None,
    replace_unknown: bool,
) -> inference_pb2.ListTopContinuationsRequest:
    message = inference_pb2.ListTopContinuationsRequest(
        model=model_name(model),
        context=context_message(prompt),
        unknown_characters=unknown_policy(replace_unknown),
    )
    values = {"length": length, "num_continuations": num, "max_steps": max_steps}
    for name, value in values.items():
        if value is not None:
            with naming_field(name, value, UINT32):
                setattr(message, name, value)
    return message


def top_continuations_from(
    message: inference_pb2.ListTopContinuationsResponse,
) -> TopContinuations:
    return TopContinuations(
        continuations=tuple(
            Continuation(
                text=each.text,
                token_ids=tuple(each.token_ids),
                total_logprob=each.total_logprob,
            )
            for each in message.continuations
        ),
        is_complete=message.is_complete,
        missing_logprob_bound=message.missing_logprob_bound,
        num_steps=message.num_steps,
    )
