"""Errors of authentication and authorization.

CharlmError
  Unauthenticated  the call has no token, or an unknown one
  NotAllowed       the token lacks the role that the call needs
"""

from charlm_server.errors.base import CharlmError


class Unauthenticated(CharlmError):
    """The call has no token, or an unknown one."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("A known token is required: send 'authorization: Bearer TOKEN'.")


class NotAllowed(CharlmError):
    """The token lacks the role that the call needs."""

    reason = "ROLE_MISSING"

    def __init__(self, caller: str, role: str) -> None:
        self.role = role
        super().__init__(f"Token {caller!r} lacks the role {role!r}.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"role": self.role}
