"""Requests that cannot be parsed: told to the caller as ours are, and not logged as faults."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from charlm_server.errors.base import MessageDamaged

_DAMAGED = object()


def tolerant(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """gRPC would call an exception in here INTERNAL; so it is raised later, by `checked`."""
    if deserialize is None:
        return None

    def deserialized(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _DAMAGED

    return deserialized


def checked(request: Any, on_request: Callable[[Any], None], *, is_stream: bool) -> Any:
    """The request, or requests as they come; `on_request` sees each. Raises MessageDamaged."""
    return (_checked_stream if is_stream else _checked)(request, on_request)


def _checked(request: Any, on_request: Callable[[Any], None]) -> Any:
    if request is _DAMAGED:
        raise MessageDamaged
    on_request(request)
    return request


async def _checked_stream(requests: Any, on_request: Callable[[Any], None]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, on_request)
