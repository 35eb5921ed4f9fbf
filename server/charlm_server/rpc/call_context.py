"""What travels with one call: from the interceptors outward, and inward to the servicer."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from charlm_server.calls.call import Call


class AuthenticatedHandler(NamedTuple):
    """What the auth interceptor answers: the handler that gRPC found, and whose call it is for."""

    handler: Any
    caller: str  # the name of a token's holder


class IncomingCall(NamedTuple):
    """What is known of a call before its request is read."""

    method: str  # as "/charlm.v1.GenerationService/Generate"
    metadata: Iterable[tuple[str, str | bytes]]
    caller: str  # empty where everyone may call


class TrackedContext:
    """gRPC's context of one call, with the record of that call."""

    def __init__(self, context: Any, call: Call) -> None:
        self._context, self.call = context, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def call_of(context: Any) -> Call:
    """The record of the call that a servicer answers."""
    call: Call = context.call
    return call
