"""What can go wrong when more is asked than may be. The wire names are in interceptors.py.

QueueFull
  QuotaExceeded      as much as this caller may ask for
  ShareTaken         as much as one caller may have waiting
  TooManyCalls       as many calls as may be open
"""

from charlm_server.errors.base import CharlmError


class QueueFull(CharlmError):
    """The bounded queue has no place; `retry_after_s` is when one is expected."""

    reason = "QUEUE_FULL"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        self.limit = limit
        super().__init__(f"The queue is full ({limit} {what}); try again in {retry_after_s:.1f} s.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class QuotaExceeded(QueueFull):
    """This caller has asked for all that it may."""

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
    """This caller has taken its share of the queue."""

    reason = "CALLER_SHARE"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.limit, self.retry_after_s = limit, retry_after_s
        CharlmError.__init__(
            self,
            f"You have as many {what} waiting as one caller may ({limit}); try again in "
            f"{retry_after_s:.1f} s.",
        )


class TooManyCalls(QueueFull):
    """As many calls are open as may be."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, limit: int) -> None:
        self.limit, self.retry_after_s = limit, 1.0
        CharlmError.__init__(self, f"As many calls are open as may be ({limit}); try again in 1 s.")


class DeadlineTooShort(CharlmError):
    """The call's deadline comes before its turn."""

    reason = "DEADLINE_TOO_SHORT"

    def __init__(self, remaining_s: float, needed_s: float) -> None:
        super().__init__(
            f"The deadline leaves {max(remaining_s, 0):.3f} s, but the call starts only in about "
            f"{needed_s:.3f} s; allow more time or try again later."
        )


class DeadlinePassed(DeadlineTooShort):
    """The call was being worked on when its deadline came."""

    reason = "DEADLINE_PASSED"

    def __init__(self, worked_s: float) -> None:
        CharlmError.__init__(
            self,
            f"The deadline came after {worked_s:.3f} s, before the work was done; allow more time "
            "or ask for less.",
        )


class Draining(CharlmError):
    """The server is stopping; another replica may take the call."""

    reason = "DRAINING"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__("The server is stopping and takes no new calls; try another replica.")
