"""Values to messages. A value that a message cannot hold is refused before anything is sent."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import get_args

from google.protobuf.duration_pb2 import Duration

from charlm.v1 import (
    context_pb2,
    distribution_pb2,
    generation_pb2,
    sampling_pb2,
    scoring_pb2,
    tokenizer_pb2,
)
from charlm_client.errors import InvalidRequest, UnknownCharacter
from charlm_client.types import After, Constraint, ConstraintMode, Details, Sampling, Stopping

# The ranges of message fields.
UINT32 = f"an integer from 0 to {2**32 - 1}, and the server may allow less"
UINT64 = f"an integer from 0 to {2**64 - 1}"


def model_name(model: str) -> str:
    """The resource name: "shakespeare" and "models/shakespeare" mean the same."""
    return checked(model if model.startswith("models/") else f"models/{model}", "model")


def generate_message(
    prompt: str | After,
    *,
    model: str,
    sampling: Sampling,
    stopping: Stopping,
    num_outputs: int | None,
    replace_unknown: bool,
) -> generation_pb2.GenerateRequest:
    with naming_field("num_outputs", num_outputs, UINT32):
        return generation_pb2.GenerateRequest(
            model=model_name(model),
            context=_context(prompt),
            append_text=checked(prompt.text, "append_text") if isinstance(prompt, After) else "",
            sampling=sampling_message(sampling),
            stopping=stopping_message(stopping),
            constraint=constraint_message(sampling.constraint) if sampling.constraint else None,
            num_outputs=num_outputs,
            unknown_characters=unknown_policy(replace_unknown),
        )


def score_message(
    texts: Sequence[str],
    *,
    model: str,
    context: str | After,
    end_of_text: bool,
    details: bool | Details,
    replace_unknown: bool,
) -> scoring_pb2.ScoreRequest:
    return scoring_pb2.ScoreRequest(
        model=model_name(model),
        items=[
            scoring_pb2.ScoreItem(
                context=context_message(context),
                text=checked(text, f"items[{index}].text"),
                end_of_text=end_of_text,
            )
            for index, text in enumerate(texts)
        ],
        returns=_returns_message(details),
        unknown_characters=unknown_policy(replace_unknown),
    )


def _returns_message(details: bool | Details) -> distribution_pb2.ReturnOptions:
    if not details:
        return distribution_pb2.ReturnOptions(logprobs=True)
    more = details if isinstance(details, Details) else Details()
    with naming_field("top_k", more.top_k, UINT32):
        return distribution_pb2.ReturnOptions(
            logprobs=True,
            ranks=True,
            entropies=True,
            top_k=more.top_k,
            distributions=more.distributions,
        )


def next_message(
    prompt: str | After, *, model: str, top_k: int, replace_unknown: bool
) -> scoring_pb2.GetNextDistributionRequest:
    with naming_field("top_k", top_k, UINT32):
        return scoring_pb2.GetNextDistributionRequest(
            model=model_name(model),
            context=context_message(prompt),
            top_k=top_k,
            unknown_characters=unknown_policy(replace_unknown),
        )


def encode_message(
    texts: Sequence[str], *, model: str, replace_unknown: bool
) -> tokenizer_pb2.EncodeRequest:
    return tokenizer_pb2.EncodeRequest(
        model=model_name(model),
        texts=[checked(text, f"texts[{index}]") for index, text in enumerate(texts)],
        unknown_characters=unknown_policy(replace_unknown),
    )


def decode_message(
    sequences: Iterable[Sequence[int]], *, model: str
) -> tokenizer_pb2.DecodeRequest:
    message = tokenizer_pb2.DecodeRequest(model=model_name(model))
    for index, ids in enumerate(sequences):
        with naming_field(f"sequences[{index}]", ids, f"token ids, each {UINT32}"):
            message.sequences.add(ids=ids)
    return message


def sampling_message(sampling: Sampling) -> sampling_pb2.SamplingParams:
    message = sampling_pb2.SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        typical_p=sampling.typical_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
    )
    for name, allowed in (("top_k", UINT32), ("penalty_window", UINT32), ("seed", UINT64)):
        value = getattr(sampling, name)
        if value is not None:
            with naming_field(f"sampling.{name}", value, allowed):
                setattr(message, name, value)
    for token_id, bias in sampling.logit_bias.items():
        with naming_field("sampling.biases.token_id", token_id, UINT32):
            message.biases.add(token_id=token_id, bias=bias)
    return message


def constraint_message(constraint: Constraint) -> sampling_pb2.Constraint:
    check_word(constraint.mode, get_args(ConstraintMode), "constraint.mode")
    message = sampling_pb2.Constraint(
        mode=getattr(sampling_pb2, f"CONSTRAINT_MODE_{constraint.mode.upper()}")
    )
    if constraint.regex is not None:
        message.regex = checked(constraint.regex, "constraint.regex")
    if constraint.allowed_characters is not None:
        message.allowed_characters = checked(
            constraint.allowed_characters, "constraint.allowed_characters"
        )
    for index, text in enumerate(constraint.choices):
        message.choices.texts.append(checked(text, f"constraint.choices.texts[{index}]"))
    given = (constraint.regex, constraint.allowed_characters, constraint.choices or None)
    if sum(each is not None for each in given) != 1:
        raise InvalidRequest(
            "constraint must set exactly one of regex, choices and allowed_characters.",
            field="constraint",
        )
    for name in ("num_particles", "max_attempts"):
        value = getattr(constraint, name)
        if value is not None:
            with naming_field(f"constraint.{name}", value, UINT32):
                setattr(message, name, value)
    return message


def stopping_message(stopping: Stopping) -> sampling_pb2.StoppingParams:
    with naming_field("stopping.max_new_tokens", stopping.max_new_tokens, UINT32):
        message = sampling_pb2.StoppingParams(
            max_new_tokens=stopping.max_new_tokens,
            stop_sequences=[
                checked(text, f"stopping.stop_sequences[{index}]")
                for index, text in enumerate(stopping.stop_sequences)
            ],
            include_stop_sequence=stopping.include_stop_sequence,
            ignore_end_of_text=stopping.ignore_end_of_text,
        )
    max_time = duration_message(stopping.max_time_s, "stopping.max_time")
    if max_time is not None:
        message.max_time.CopyFrom(max_time)
    return message


def duration_message(seconds: float | None, field: str) -> Duration | None:
    """None for None. Raises InvalidRequest for NaN and infinity."""
    if seconds is None:
        return None
    message = Duration()
    with naming_field(field, seconds, "a finite number of seconds"):
        message.FromNanoseconds(round(seconds * 1e9))
    return message


def check_word(word: str, allowed: tuple[str, ...], field: str) -> None:
    """Raises InvalidRequest for a word outside `allowed`."""
    if word not in allowed:
        message = f"{field} is {word!r}; it must be one of {', '.join(allowed)}."
        raise InvalidRequest(message, field=field)


def checked(text: str, field: str) -> str:
    """The text. Raises UnknownCharacter for a surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnknownCharacter(
            f"{field} is not Unicode text: {text[error.start]!r} at offset {error.start} is not a "
            "character. It may come from bytes that are not UTF-8.",
            field=field,
        ) from error
    return text


def context_message(text: str | After, field: str = "context.text") -> context_pb2.Context:
    """Raises InvalidRequest for text after a state, which only prompts can have."""
    if isinstance(text, After) and text.text:
        raise InvalidRequest(
            "After.text is for prompts of generate; elsewhere advance the state by the text first."
        )
    return _context(text, field)


def _context(text: str | After, field: str = "context.text") -> context_pb2.Context:
    if isinstance(text, str):
        return context_pb2.Context(text=checked(text, field))
    if isinstance(text.state, bytes):
        return context_pb2.Context(state=context_pb2.StateReference(inline_state=text.state))
    return context_pb2.Context(state=context_pb2.StateReference(name=text.state))


def unknown_policy(replace_unknown: bool) -> "context_pb2.UnknownCharacterPolicy.ValueType":
    if replace_unknown:
        return context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE
    return context_pb2.UNKNOWN_CHARACTER_POLICY_UNSPECIFIED


@contextmanager
def naming_field(field: str, value: object, allowed: str) -> Iterator[None]:
    """Raise InvalidRequest with the field's name where protobuf refuses a value."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        message = f"{field} is {value!r}; it must be {allowed}."
        raise InvalidRequest(message, field=field) from error
