"""Errors of calls. The names are those of the server's errors.

CharlmError
  InvalidRequest        a field has a value that is not allowed; the message says what is
    UnknownCharacter    a character outside the model's vocabulary
  NotAllowed            the access token is unknown, or lacks the role for this call
  ModelNotFound         no such model is loaded
  StateMismatch         the state or resume token belongs to another model, or was changed
  StateNotFound         no such state is kept, or it expired
  CodecMismatch         the data was compressed with another model or arithmetic
  QueueFull             the server is too busy; retry after `retry_after_s` seconds
  TooLarge              the request or its response exceeds the size limit of a message
  DeadlineExceeded      the call took longer than its timeout
  Draining              the server is stopping
  Unavailable           no server answers at the address
  NotOffered            this server does not offer the call
  DataLoss              the data that was sent is damaged
  ServerFault           an internal error of the server; its log has details
"""


class CharlmError(Exception):
    """The base of all errors that a call raises. `str()` of it is a sentence for people."""

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        """Machine-readable reason, for instance UNKNOWN_CHARACTER; "" if the server gave none."""


class InvalidRequest(CharlmError):
    """A field of the request has a value that is not allowed. `field` is its path on the wire."""

    def __init__(self, message: str, *, reason: str = "", field: str = "") -> None:
        super().__init__(message, reason=reason)
        self.field = field


class UnknownCharacter(InvalidRequest):
    """A character outside the model's vocabulary."""


class NotAllowed(CharlmError):
    """The access token is unknown to the server, or lacks the role for this call."""


class ModelNotFound(CharlmError):
    """No such model is loaded."""


class StateMismatch(CharlmError):
    """The state or resume token belongs to another model, or the state has another etag."""


class StateNotFound(CharlmError):
    """No such state is kept for this caller, or it expired."""


class CodecMismatch(CharlmError):
    """The data was compressed with another model or arithmetic."""


class QueueFull(CharlmError):
    """The server is too busy. Retry after `retry_after_s` seconds."""

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class TooLarge(CharlmError):
    """The request or its response exceeds the size limit of a message."""


class DeadlineExceeded(CharlmError):
    """The call took longer than its timeout."""


class Draining(CharlmError):
    """The server is stopping and takes no new calls."""


class Unavailable(CharlmError):
    """No server answers at the address."""


class NotOffered(CharlmError):
    """This server does not offer the call."""


class DataLoss(CharlmError):
    """The data that was sent is damaged."""


class ServerFault(CharlmError):
    """An internal error of the server; its log has details."""
