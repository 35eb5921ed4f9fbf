"""The first status of a call, which gRPC may overwrite."""

from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

Result = TypeVar("Result")


class FirstStatus:
    """Keeps the status that a call ended with.

    A server that refuses a stream ends the call while the client still writes, and the late write
    replaces the server's message by "Internal error from Core".
    Source: https://github.com/grpc/grpc/issues/36066.
    """

    def __init__(self, call: Any) -> None:
        self._error: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    def of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The server's own error if it came before this one."""
        return self._error or error

    def _keep(self, call: Any) -> None:
        code = _ready(call.code())
        if code is grpc.StatusCode.OK:
            return
        self._error = grpc.aio.AioRpcError(
            code,
            grpc.aio.Metadata(),
            _ready(call.trailing_metadata()),
            details=_ready(call.details()),
        )


def _ready(waiting: Awaitable[Result]) -> Any:
    """The result of an awaitable that need not wait: the call is done."""
    try:
        waiting.__await__().send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a call that is done has its status")
