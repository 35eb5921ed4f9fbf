"""What goes up in a stream, and how it is told when making it fails."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from charlm_client.errors import CharlmError

Request = TypeVar("Request")


class RequestStream(Generic[Request]):
    """The requests of a call. Where making one fails, gRPC would only say that it was cancelled."""

    def __init__(self, requests: AsyncIterator[Request]) -> None:
        self._requests = requests
        self._failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[Request]:
        try:
            async for request in self._requests:
                yield request
        except Exception as error:
            self._failure = error
            raise

    @contextmanager
    def raising_failures(self) -> Iterator[None]:
        """Around the reading of answers: raises what went wrong here, where that ended them."""
        try:
            yield
        except (CharlmError, asyncio.CancelledError):
            if self._failure is not None:
                raise self._failure from None
            raise
