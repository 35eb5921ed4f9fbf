"""What can go wrong in a call, under the names that the server uses too.

CharlmError
  InvalidRequest        the caller can fix it: a field, and what is allowed
    UnknownCharacter    a character outside the model's vocabulary
  NotAllowed            the server knows no such token, or the token may not do this
  ModelNotFound         no such model is loaded
  StateMismatch         the state or resume token belongs to another model, or was changed
  StateNotFound         no such state is kept, or it expired
  CodecMismatch         it was compressed with another model or arithmetic
  QueueFull             try again in `retry_after_s`
  TooLarge              the request or its answer does not fit a message
  DeadlineExceeded      the call took longer than it may
  Draining              the server is stopping
  Unavailable           no server answers at the address
  NotOffered            this server does not do it
  DataLoss              what was sent is damaged
  ServerFault           a fault of the server's
"""


class CharlmError(Exception):
    """The base of everything a call can raise; its text is a sentence for a person."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """The server's stable reason, for instance UNKNOWN_CHARACTER; empty when it gave none."""


class InvalidRequest(CharlmError):
    """A field of the request has a value that is not allowed."""

    def __init__(self, message: str, *, reason: str = "", field: str = "") -> None:
        super().__init__(message, reason=reason)
        self.field = field


class UnknownCharacter(InvalidRequest):
    """A character outside the model's vocabulary."""


class NotAllowed(CharlmError):
    """The server knows no such token, or the token may not do this."""


class ModelNotFound(CharlmError):
    """No such model is loaded."""


class StateMismatch(CharlmError):
    """The state or resume token belongs to another model, or the state has another etag."""


class StateNotFound(CharlmError):
    """No such state is kept for this caller, or it expired."""


class CodecMismatch(CharlmError):
    """It was compressed with another model or arithmetic."""


class QueueFull(CharlmError):
    """The server has as much to do as it may take on."""

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class TooLarge(CharlmError):
    """The request or its answer does not fit a message."""


class DeadlineExceeded(CharlmError):
    """The call took longer than it may."""


class Draining(CharlmError):
    """The server is stopping and takes no new calls."""


class Unavailable(CharlmError):
    """No server answers at the address."""


class NotOffered(CharlmError):
    """This server does not do it."""


class DataLoss(CharlmError):
    """What was sent is damaged."""


class ServerFault(CharlmError):
    """A fault of the server's; its log says more."""
