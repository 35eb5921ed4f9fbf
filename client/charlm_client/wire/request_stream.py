"""The requests of a streaming call, and errors in making them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from charlm_client.errors import CharlmError

Request = TypeVar("Request")


class RequestStream(Generic[Request]):
    """The requests of a call. gRPC reports an error in making one only as a cancelled call."""

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
        """Around reading the responses: raises the error of making a request, if there was one."""
        try:
            yield
        except (CharlmError, asyncio.CancelledError):
            if self._failure is not None:
                raise self._failure from None
            raise
