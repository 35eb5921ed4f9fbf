"""Errors that a caller or an operator can read: the base, and those of no one subject.

rpc/error_interceptor.py maps them to gRPC's status codes (STATUS_OF). This file imports nothing.
The whole tree, with the file of each branch:

CharlmError
  InvalidRequest        a field has a value that is not allowed
    InvalidText         a text has a character outside the model's vocabulary, or is not UTF-8
  MessageDamaged        the bytes of a request cannot be parsed
  TooManyEntries        a request has too many fields or numbers to be parsed
  AnswerTooLarge        the response would exceed the limit of one message
  NotOffered            a part of the API that this server does not support
  EngineFailed          the engine failed on the call; the details are in the log
  EngineDied            the engine's thread has ended
  auth.py               Unauthenticated, NotAllowed
  codec.py              CodecMismatch > NumericsMismatch, CodecDamaged > CodecHeaderDamaged
  models.py             ModelNotFound, CheckpointUnknown, CheckpointUnusable, ModelInUse,
                        TooManyModels
  overload.py           QueueFull > QuotaExceeded, ShareTaken, TooManyCalls;
                        DeadlineTooShort > DeadlinePassed; Draining
  resume.py             ResumeMismatch, ResumeTokenDamaged
  states.py             StateNotFound, StateChanged, PositionNotKept,
                        StatesFull > StateShareTaken, StateMismatch, StateDamaged
ServeError              the server cannot start; printed by the command, never sent
"""


class CharlmError(Exception):
    """The base of all errors that are sent to callers."""

    reason = "UNKNOWN"

    @property
    def metadata(self) -> dict[str, str]:
        """Machine-readable details beside the sentence."""
        return {}


class InvalidRequest(CharlmError):
    """A field has a value outside its range; `allowed` completes "it must be ..."."""

    reason = "INVALID_FIELD"

    def __init__(
        self, field: str, value: object, allowed: str, *, reason: str | None = None
    ) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        self.reason = reason or self.reason
        super().__init__(f"{field} is {shown(value)}; it must be {allowed}.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"field": self.field, "value": cut(repr(self.value)), "allowed": self.allowed}


class InvalidText(InvalidRequest):
    """A text that the model's vocabulary cannot encode; `offset` is the character that it lacks."""

    def __init__(self, field: str, sentence: str, offset: int, *, reason: str) -> None:
        super().__init__(field, offset, "within the vocabulary", reason=reason)
        self.offset = offset
        self.args = (f"{field}: {sentence}",)

    @property
    def metadata(self) -> dict[str, str]:
        return {"field": self.field, "offset": str(self.offset)}


class MessageDamaged(CharlmError):
    """The bytes of a request cannot be parsed as the method's message."""

    reason = "MESSAGE_DAMAGED"

    def __init__(self) -> None:
        super().__init__(
            "The request cannot be parsed as this method's message: it was damaged, or made from "
            "another version of the API."
        )


class TooManyEntries(CharlmError):
    """A request has too many fields or numbers to be parsed."""

    reason = "TOO_MANY_ENTRIES"

    def __init__(self, what: str, limit: int) -> None:
        self.limit = limit
        super().__init__(
            f"The request has more than {limit:,} {what}; it was not parsed. Split it into several."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class AnswerTooLarge(CharlmError):
    """The response would exceed the limit of one message."""

    reason = "ANSWER_TOO_LARGE"

    def __init__(self, limit: int, advice: str) -> None:
        self.limit = limit
        super().__init__(
            f"The response would exceed {limit} bytes, the limit of one message; {advice}."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class NotOffered(CharlmError):
    """A part of the API that this server does not support."""

    reason = "NOT_OFFERED"

    def __init__(self, what: str, advice: str = "Another version may support it.") -> None:
        super().__init__(f"{what} is not supported by this server. {advice}")


class EngineFailed(CharlmError):
    """The engine failed while it worked on the call; the details are in the log."""

    reason = "ENGINE_FAILED"

    def __init__(self) -> None:
        super().__init__("The engine failed on this call; retry it.")


class EngineDied(CharlmError):
    """The engine's thread has ended; no call on the model can succeed in this process."""

    reason = "ENGINE_DIED"

    def __init__(self) -> None:
        super().__init__("The engine crashed; retry on another replica.")


class ServeError(Exception):
    """The server cannot start. The message is one sentence that says what to do."""


class Described(str):
    """A value in words, such as "5 bytes" or "unset"; sentences do not quote it."""

    __slots__ = ()


def shown(value: object) -> str:
    """The value as sentences have it: cut where it would fill a screen."""
    return cut(str(value) if isinstance(value, Described) else repr(value))


def cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
