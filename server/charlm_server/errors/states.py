"""What can go wrong with kept and exported states. The wire names are in interceptors.py.

CharlmError
  StateNotFound      no such state is kept for this caller, or it expired
  StateChanged       the state is no longer the one that the caller knows
  PositionNotKept    the state has no checkpoint there
  StatesFull         no more can be kept; try again later
    StateShareTaken  no more can be kept for this caller
  StateMismatch      another checkpoint, arithmetic or version made the state
  StateDamaged       the bytes are no whole exported state
"""

from charlm_server.errors.base import CharlmError


class StateNotFound(CharlmError):
    """No such state is kept for this caller, or it expired."""

    reason = "STATE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"No state {name[:80]!r} is kept: it expired, was deleted, or never was; create it "
            "again from its text."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"state": self.name[:80]}


class StateChanged(CharlmError):
    """The state is no longer the one that the caller knows."""

    reason = "ETAG_MISMATCH"

    def __init__(self, name: str, known: str, etag: str) -> None:
        self.name, self.etag = name, etag
        super().__init__(
            f"The state {name} has the etag {etag!r} now, not {known[:80]!r}: someone has changed "
            "it; get it again and decide anew."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"state": self.name, "etag": self.etag}


class PositionNotKept(CharlmError):
    """The state has no checkpoint there."""

    reason = "POSITION_NOT_KEPT"

    def __init__(self, name: str, position: int, kept: list[int]) -> None:
        shown = ", ".join(map(str, kept[:10])) + (", ..." if len(kept) > 10 else "")
        super().__init__(
            f"position is {position}, but of {name} only these are kept: {shown}; ask for a "
            "checkpoint when advancing."
        )


class StatesFull(CharlmError):
    """No more can be kept; `retry_after_s` is when the first expires."""

    reason = "TOO_MANY_STATES"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.limit, self.retry_after_s = limit, retry_after_s
        super().__init__(
            f"The server keeps as many {what} as it may ({limit}); delete some, or try "
            f"again in {retry_after_s:.0f} s, when one expires."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class StateShareTaken(StatesFull):
    """No more can be kept for this caller; `retry_after_s` is when its first expires."""

    reason = "CALLER_STATE_SHARE"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        super().__init__(what, limit, retry_after_s)
        self.args = (
            f"The server keeps as many {what} for you as for any one caller ({limit}); delete "
            f"some, or try again in {retry_after_s:.0f} s, when one expires.",
        )


class StateMismatch(CharlmError):
    """Another checkpoint, arithmetic or version made the state; `what` names which."""

    def __init__(self, sentence: str, what: str) -> None:
        self.reason = f"STATE_{what}_MISMATCH"
        super().__init__(sentence)


class StateDamaged(CharlmError):
    """The bytes are no whole exported state."""

    reason = "STATE_DAMAGED"
