"""What can go wrong. The wire names are in interceptors.py; this file imports nothing.

CharlmError
  InvalidRequest        the caller can fix it: a field, its value, what is allowed
    InvalidText         a text that the model's vocabulary cannot spell
  MessageDamaged        the bytes of a request are no message
  AnswerTooLarge        the answer would not fit a message
  ModelNotFound         no such model is loaded
  CheckpointUnknown     no such checkpoint in the model directory
  CheckpointUnusable    it is there, but damaged or of another version
  ModelInUse            an alias stands for the model that is to go
  TooManyModels         no more can be loaded
  QueueFull             try again later
    ...                 more in overload_errors.py
  Unauthenticated       no token, or an unknown one
  NotAllowed            the token has not the role that the call needs
  DeadlineTooShort      the call cannot start, or did not, before its deadline
    DeadlinePassed      it started, and was not done by then
  Draining              the server is stopping and admits nothing new
  CodecMismatch         compressed with another model
    NumericsMismatch    compressed in another arithmetic
  CodecDamaged          a frame of a compressed form is damaged
    CodecHeaderDamaged  what should be a compressed form does not begin as one
  ResumeMismatch        the stream to go on with was another
  ResumeTokenDamaged    what should be a resume token is none
  NotOffered            the contract names it, this server does not do it
  EngineFailed          a fault of ours; the details are in the server's log
  EngineDied            another fault of ours, after which this server can do no more
ServeError              the server cannot start; read by a person, never sent
"""


class CharlmError(Exception):
    """The base of all errors that a caller is told about."""

    reason = "UNKNOWN"

    @property
    def metadata(self) -> dict[str, str]:
        """Machine-readable details beside the sentence."""
        return {}


class InvalidRequest(CharlmError):
    """A field has a value outside its range; `allowed` says what would do."""

    reason = "INVALID_FIELD"

    def __init__(
        self, field: str, value: object, allowed: str, *, reason: str | None = None
    ) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        self.reason = reason or self.reason
        super().__init__(f"{field} is {shown(value)}, but it must be {allowed}.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"field": self.field, "value": shown(self.value), "allowed": self.allowed}


class InvalidText(InvalidRequest):
    """A text that the model's vocabulary cannot spell; `offset` is where."""

    def __init__(self, field: str, sentence: str, offset: int, *, reason: str) -> None:
        super().__init__(field, offset, "within the vocabulary", reason=reason)
        self.offset = offset
        self.args = (f"{field}: {sentence}",)

    @property
    def metadata(self) -> dict[str, str]:
        return {"field": self.field, "offset": str(self.offset)}


class MessageDamaged(CharlmError):
    """The bytes of a request are not the message that the method takes."""

    reason = "MESSAGE_DAMAGED"

    def __init__(self) -> None:
        super().__init__(
            "The request cannot be parsed as the message that this method takes; it was damaged, "
            "or made from another contract."
        )


class AnswerTooLarge(CharlmError):
    """The answer would not fit a message."""

    reason = "ANSWER_TOO_LARGE"

    def __init__(self, limit: int, advice: str) -> None:
        self.limit = limit
        super().__init__(f"The answer would be larger than a message of {limit} bytes; {advice}.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class NotOffered(CharlmError):
    """Part of the contract that this server does not do."""

    reason = "NOT_OFFERED"

    def __init__(self, what: str, remedy: str = "Another version may.") -> None:
        super().__init__(f"{what} is not offered by this server. {remedy}")


class EngineFailed(CharlmError):
    """A fault of ours while the call was being worked on."""

    reason = "ENGINE_FAILED"

    def __init__(self) -> None:
        super().__init__("The engine failed while working on this call; it may be tried again.")


class EngineDied(CharlmError):
    """The thread that works for the model has ended; another replica may take the call."""

    reason = "ENGINE_DIED"

    def __init__(self) -> None:
        super().__init__("The model's engine has died and must be started again; try another.")


class ServeError(Exception):
    """The server cannot start. The message is one sentence that says what to do."""


def shown(value: object) -> str:
    """The value as a person reads it, cut where it would fill a screen."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
