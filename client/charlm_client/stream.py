"""A generation as it happens: iterate over its chunks, leave the block to cancel it."""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import grpc

from charlm.v1 import generation_pb2
from charlm_client.conversion import chunk_from, header_from
from charlm_client.translation import translated
from charlm_client.types import Chunk, StreamHeader

Call = grpc.aio.UnaryStreamCall[
    generation_pb2.StreamGenerateRequest, generation_pb2.StreamGenerateResponse
]


class GenerationStream:
    """Chunks in the order in which they were sampled. Leaving early frees the server's row."""

    def __init__(self, call: Call, address: str) -> None:
        self._call, self._address = call, address
        self._is_cancelled = False
        self.header: StreamHeader | None = None
        """Set once the first chunk has come."""

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        with translated(self._address):
            try:
                async for message in self._call:
                    if message.HasField("header"):
                        self.header = header_from(message.header)
                    for chunk in message.chunks:
                        yield chunk_from(chunk)
            except asyncio.CancelledError:
                # gRPC raises the same for a cancelled call as for a cancelled task.
                if not self._is_cancelled or _is_being_cancelled():
                    raise

    def cancel(self) -> None:
        """End the call now, and with it the iteration; harmless when it is over."""
        self._is_cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
