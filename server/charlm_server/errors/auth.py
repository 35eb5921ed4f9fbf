"""Errors about who may call."""

from charlm_server.errors.base import CharlmError


class Unauthenticated(CharlmError):
    """No token came with the call, or one that is not known."""

    reason = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("This server asks for a known token: 'authorization: Bearer TOKEN'.")


class NotAllowed(CharlmError):
    """The caller is known, but may not do this."""

    reason = "ROLE_MISSING"

    def __init__(self, caller: str, role: str) -> None:
        self.role = role
        super().__init__(f"The token of {caller!r} has not the role {role!r} that this call needs.")

    @property
    def metadata(self) -> dict[str, str]:
        return {"role": self.role}
