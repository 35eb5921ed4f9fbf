"""Types that carry data of one call between the interceptors and to the servicer."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from charlm_server.calls.call import Call


class AuthenticatedHandler(NamedTuple):
    """The auth interceptor's result: the handler that gRPC found, and the caller."""

    handler: Any
    caller: str  # the name of a token's holder


class IncomingCall(NamedTuple):
    """The data of a call that are known before its request is read."""

    method: str  # as "/charlm.v1.GenerationService/Generate"
    metadata: Iterable[tuple[str, str | bytes]]
    caller: str  # empty on a server without tokens


class TrackedContext:
    """gRPC's context of one call, with the record of that call."""

    def __init__(self, context: Any, call: Call) -> None:
        self._context, self.call = context, call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def call_of(context: Any) -> Call:
    """The record of the call in progress; for servicers."""
    call: Call = context.call
    return call
