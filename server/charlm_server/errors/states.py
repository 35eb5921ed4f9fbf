"""Errors of kept and exported states.

CharlmError
  StateNotFound      the caller has no such state, or it expired
  StateChanged       the state was changed since the caller read it
  PositionNotKept    the state has no checkpoint there
  StatesFull         the limit of states is reached; retry later
    StateShareTaken  the limit for one caller is reached
  StateMismatch      another checkpoint, arithmetic or version made the state
  StateDamaged       the bytes are not a whole exported state
"""

from charlm_server.errors.base import CharlmError


class StateNotFound(CharlmError):
    """The caller has no such state, or it expired."""

    reason = "STATE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"No state {name[:80]!r} exists: it expired, was deleted, or never existed; create it "
            "again from its text."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"state": self.name[:80]}


class StateChanged(CharlmError):
    """The state was changed since the caller read it."""

    reason = "ETAG_MISMATCH"

    def __init__(self, name: str, known: str, etag: str) -> None:
        self.name, self.etag = name, etag
        super().__init__(
            f"State {name} was changed: its etag is {etag!r}, not {known[:80]!r}; get it again "
            "before you change it."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"state": self.name, "etag": self.etag}


class PositionNotKept(CharlmError):
    """The state has no checkpoint at that position."""

    reason = "POSITION_NOT_KEPT"

    def __init__(self, name: str, position: int, kept: list[int]) -> None:
        shown = ", ".join(map(str, kept[:10])) + (", ..." if len(kept) > 10 else "")
        super().__init__(
            f"position is {position}; {name} has checkpoints only at {shown}; set `checkpoint` "
            "when you advance it."
        )


class StatesFull(CharlmError):
    """The limit of states is reached; the first expires in `retry_after_s` seconds."""

    reason = "TOO_MANY_STATES"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        self.limit, self.retry_after_s = limit, retry_after_s
        super().__init__(
            f"The limit of {limit} {what} is reached; delete some, or try again in "
            f"{retry_after_s:.0f} s, when one expires."
        )

    @property
    def metadata(self) -> dict[str, str]:
        return {"limit": str(self.limit)}


class StateShareTaken(StatesFull):
    """The limit for one caller is reached; its first expires in `retry_after_s` seconds."""

    reason = "CALLER_STATE_SHARE"

    def __init__(self, what: str, limit: int, retry_after_s: float) -> None:
        super().__init__(what, limit, retry_after_s)
        self.args = (
            f"The limit of {limit} {what} for one caller is reached; delete some, or try again in "
            f"{retry_after_s:.0f} s, when one expires.",
        )


class StateMismatch(CharlmError):
    """Another checkpoint, arithmetic or version made the state; `what` names which."""

    def __init__(self, sentence: str, what: str) -> None:
        self.reason = f"STATE_{what}_MISMATCH"
        super().__init__(sentence)


class StateDamaged(CharlmError):
    """The bytes are not a whole exported state."""

    reason = "STATE_DAMAGED"
