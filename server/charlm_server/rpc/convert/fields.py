"""Fields that many requests share: texts, token ids, counts, durations.

A value out of range raises InvalidRequest with the name of its field.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from charlm.v1 import context_pb2, distribution_pb2
from charlm_model import errors as model_errors
from charlm_model.text.incremental import IncrementalEncoder
from charlm_model.text.vocabulary import END_OF_TEXT_ID, UnknownPolicy, Vocabulary
from charlm_server.config.limits import Limits
from charlm_server.engine.token_columns import Ids, Returns
from charlm_server.errors.base import (
    AnswerTooLarge,
    Described,
    InvalidRequest,
    InvalidText,
    NotOffered,
)

Encoded = TypeVar("Encoded")

DATA_TYPES = frozenset(distribution_pb2.DataType.values())
FEWER_STATES = "ask for fewer states a call, or use CreateState and ExportState"
MOST_SECONDS = 315_576_000_000  # of a google.protobuf.Duration

POLICIES: dict[int, UnknownPolicy] = {
    context_pb2.UNKNOWN_CHARACTER_POLICY_UNSPECIFIED: "error",
    context_pb2.UNKNOWN_CHARACTER_POLICY_ERROR: "error",
    context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE: "replace",
}

REASONS: dict[type[model_errors.ModelError], str] = {
    model_errors.UnknownCharacter: "UNKNOWN_CHARACTER",
    model_errors.InvalidUtf8: "INVALID_UTF8",
}


class TextMessage(Protocol):
    """A message with a text in one of three forms."""

    @property
    def text(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def token_ids(self) -> context_pb2.TokenIds: ...


class TextReader:
    """Encodes the texts of one request with one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, policy: int) -> None:
        if policy not in POLICIES:
            allowed = _one_of(context_pb2.UnknownCharacterPolicy.keys())
            raise InvalidRequest("unknown_characters", policy, allowed)
        self._vocabulary = vocabulary
        self._policy = POLICIES[policy]

    def context_ids(self, context: context_pb2.Context, field: str) -> list[int]:
        """The start id and the ids of a context that is not a state."""
        kind = context.WhichOneof("kind")
        if kind in ("state", "resume_token"):
            raise NotOffered(f"{field}.{kind}")
        return [END_OF_TEXT_ID, *self.ids(context, kind, f"{field}.")]

    def ids(self, message: TextMessage, kind: str | None, prefix: str = "") -> list[int]:
        """The ids of a message's text, data or token_ids, whichever its `kind` says is set.

        `prefix` leads to the message: errors name `{prefix}{kind}`.
        """
        if kind == "text":
            return self.text_ids(message.text, f"{prefix}text")
        if kind == "data":
            return self.data_ids(message.data, f"{prefix}data")
        if kind == "token_ids":
            return self.token_ids(message.token_ids, f"{prefix}token_ids")
        return []

    def text_ids(self, text: str, field: str) -> list[int]:
        if not text:
            return []  # as most appended texts are
        return self._encoded(lambda: self._vocabulary.encode(text, unknown=self._policy), field)

    def data_ids(self, data: bytes, field: str) -> list[int]:
        return self._encoded(
            lambda: self._vocabulary.encode_bytes(data, unknown=self._policy), field
        )

    def token_ids(self, tokens: context_pb2.TokenIds, field: str) -> list[int]:
        check_token_ids(tokens.ids, self._vocabulary.size, f"{field}.ids")
        return list(tokens.ids)

    def incremental(self, field: str) -> Callable[[bytes, bool], Ids]:
        """An encoder of a text in pieces: called with each piece, and whether it is the last."""
        encoder = IncrementalEncoder(self._vocabulary, unknown=self._policy)

        def encode(data: bytes, is_last: bool) -> Ids:
            return self._encoded(lambda: encoder.feed(data, is_last=is_last), field)

        return encode

    @staticmethod
    def _encoded(encode: Callable[[], Encoded], field: str) -> Encoded:
        try:
            return encode()
        except (model_errors.UnknownCharacter, model_errors.InvalidUtf8) as error:
            reason = REASONS[type(error)]
            raise InvalidText(field, str(error), error.offset, reason=reason) from error


def check_token_ids(ids: Iterable[int], vocab_size: int, field: str, part: str = "") -> None:
    """Raises InvalidRequest for an id outside the vocabulary; `part` names the id in a message."""
    for index, token_id in enumerate(ids):
        if token_id >= vocab_size:
            raise InvalidRequest(f"{field}[{index}]{part}", token_id, f"below {vocab_size}")


def returns_from(
    options: distribution_pb2.ReturnOptions, limits: Limits, vocab_size: int
) -> Returns:
    """The columns to return; log-probs are included unless the request declines them."""
    check_data_type(options.data_type, "returns.data_type")
    return Returns(
        logprobs=options.logprobs if options.HasField("logprobs") else True,
        ranks=options.ranks,
        entropies=options.entropies,
        num_alternatives=min(
            check_top_k("returns.top_k", options.top_k, limits, "returns.distributions"), vocab_size
        ),
        distributions=options.distributions,
        is_float64=options.data_type == distribution_pb2.DATA_TYPE_FLOAT64,
    )


def check_top_k(field: str, top_k: int, limits: Limits, whole: str) -> int:
    """The value, if the limits allow it; `whole` names the field that holds every token."""
    limit = limits.max_top_k
    if top_k > limit:
        raise InvalidRequest(field, top_k, f"from 0 to {limit}; `{whole}` has all tokens")
    return top_k


def check_data_type(data_type: int, field: str) -> None:
    if data_type not in DATA_TYPES:
        raise InvalidRequest(field, data_type, _one_of(distribution_pb2.DataType.keys()))


def _one_of(names: Iterable[str]) -> str:
    return f"one of {', '.join(names)}"


def check_count(field: str, value: int, low: int, high: int) -> int:
    """The value. Raises InvalidRequest unless it is from `low` to `high`."""
    if not low <= value <= high:
        raise InvalidRequest(field, value, f"from {low} to {high}")
    return value


def check_states_fit(num_states: int, state_size_bytes: int, limits: Limits) -> None:
    """Raises AnswerTooLarge, before the work, for states that one message cannot hold."""
    limit = limits.max_response_message_bytes
    if num_states * state_size_bytes > limit:
        raise AnswerTooLarge(limit, FEWER_STATES)


def seconds_of(duration: Duration, field: str) -> float:
    """Raises InvalidRequest for a duration that protobuf's definition does not allow."""
    seconds, nanos = duration.seconds, duration.nanos
    if abs(nanos) >= 10**9 or seconds * nanos < 0 or abs(seconds) > MOST_SECONDS:
        allowed = f"at most {MOST_SECONDS} seconds, and below 10^9 nanos of the same sign"
        raise InvalidRequest(field, Described(f"{seconds} s and {nanos} ns"), allowed)
    return float(seconds) + nanos * 1e-9


def duration_from(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def timestamp_from(seconds: float) -> Timestamp:
    """Of seconds since the epoch."""
    whole = int(seconds)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))
