"""Errors of overload, deadlines and shutdown.

CharlmError
  QueueFull           the queue is full; retry later
    QuotaExceeded     the caller's own quota is used up
    ShareTaken        the caller's share of the queue is used up
    TooManyCalls      the limit of open calls is reached
  DeadlineTooShort    the call could not start before its deadline
    DeadlinePassed    the call started, and was not finished by its deadline
  Draining            the server is shutting down
"""

from charlm_server.errors.base import CharlmError


class QueueFull(CharlmError):
    """The queue is full; room is expected in `retry_after_s` seconds."""

    reason = "QUEUE_FULL"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        self.limit = limit
        super().__init__(f"The queue is full ({limit} {what}); try again in {retry_after_s:.1f} s.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class QuotaExceeded(QueueFull):
    """The caller's own quota is used up."""

    reason = "QUOTA_EXCEEDED"

    def __init__(self, quota: str, retry_after_s: float) -> None:
        self.quota, self.retry_after_s = quota, retry_after_s
        CharlmError.__init__(
            self, f"Your token allows {quota}; try again in {retry_after_s:.1f} s."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": self.quota}


class ShareTaken(QueueFull):
    """The caller's share of the queue is used up."""

    reason = "CALLER_SHARE"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.limit, self.retry_after_s = limit, retry_after_s
        CharlmError.__init__(
            self,
            f"The limit of {limit} queued {what} for one caller is reached; try again in "
            f"{retry_after_s:.1f} s.",
        )


class TooManyCalls(QueueFull):
    """The limit of open calls is reached."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, limit: int) -> None:
        self.limit, self.retry_after_s = limit, 1.0
        CharlmError.__init__(self, f"The limit of {limit} open calls is reached; try again in 1 s.")


class DeadlineTooShort(CharlmError):
    """The call cannot start before its deadline."""

    reason = "DEADLINE_TOO_SHORT"

    def __init__(self, remaining_s: float, needed_s: float) -> None:
        super().__init__(
            f"The deadline is in {max(remaining_s, 0):.3f} s, but the call would start in about "
            f"{needed_s:.3f} s; allow more time or try again later."
        )


class DeadlinePassed(DeadlineTooShort):
    """The call was running when its deadline passed."""

    reason = "DEADLINE_PASSED"

    def __init__(self, worked_s: float) -> None:
        CharlmError.__init__(
            self,
            f"The deadline passed after {worked_s:.3f} s of work; allow more time or ask for less.",
        )


class Draining(CharlmError):
    """The server is shutting down; another replica may take the call."""

    reason = "DRAINING"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__(
            "The server is shutting down and takes no new calls; retry on another replica."
        )
