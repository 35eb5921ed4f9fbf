"""A generation as a stream of chunks; leaving its block cancels it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

import grpc

from charlm.v1 import generation_pb2
from charlm_client.api.resuming import DRAINED, Received, Resuming
from charlm_client.types import Chunk, StreamHeader
from charlm_client.wire.from_proto import chunk_from, header_from
from charlm_client.wire.status_errors import translated

STATUS_DETAILS = "grpc-status-details-bin"  # where every gRPC library looks for them
_GONE = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED
Call = grpc.aio.UnaryStreamCall[
    generation_pb2.StreamGenerateRequest, generation_pb2.StreamGenerateResponse
]
StartCall = Callable[[Sequence[generation_pb2.ResumePoint]], Call]


class GenerationStream:
    """Chunks in the order in which they were sampled. Leaving its block cancels the call.

    If the server fails or stops, the stream continues on the next server that answers, with the
    same characters and log-probs as without the failure.
    """

    def __init__(
        self, start_call: StartCall, address: str, *, num_outputs: int, resuming: Resuming
    ) -> None:
        self._start_call, self._address = start_call, address
        self._received, self._resuming = Received(num_outputs), resuming
        self._call = start_call([])
        self._is_cancelled = False
        self.header: StreamHeader | None = None
        """Set before the first chunk."""
        self.num_resumptions = 0
        """Number of calls that continued the stream."""

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        with translated(self._address):
            try:
                async for chunk in self._resumed_chunks():
                    yield chunk
            except asyncio.CancelledError:
                # gRPC raises the same for a cancelled call as for a cancelled task.
                if not self._is_cancelled or _is_being_cancelled():
                    raise

    async def _resumed_chunks(self) -> AsyncIterator[Chunk]:
        """The chunks of one call, then of the calls that resume it."""
        attempt = 0
        while True:
            left: list[
                Chunk
            ] = []  # outputs that a stopping server cut short, which another may continue
            try:
                async for chunk in self._chunks():
                    if _was_drained(chunk):
                        left.append(chunk)
                        continue
                    self._received.add(chunk)
                    attempt = 0
                    yield chunk
                if not left:
                    return
            except grpc.aio.AioRpcError as error:
                if not self._may_resume(error, attempt):
                    raise
            if not self._received.is_resumable or attempt >= self._resuming.max_attempts:
                for chunk in left:
                    yield chunk
                return
            await asyncio.sleep(self._resuming.wait_s(attempt))
            attempt += 1
            self.num_resumptions += 1
            self._call = self._start_call(self._received.points())

    async def _chunks(self) -> AsyncIterator[Chunk]:
        async for message in self._call:
            if message.HasField("header") and self.header is None:
                self.header = header_from(message.header)
            for chunk in message.chunks:
                yield chunk_from(chunk)

    def _may_resume(self, error: grpc.aio.AioRpcError, attempt: int) -> bool:
        return (
            _is_gone(error)
            and self._received.is_resumable
            and attempt < self._resuming.max_attempts
        )

    def cancel(self) -> None:
        """Cancel the call, which ends the iteration; has no effect after the end."""
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


def _is_gone(error: grpc.aio.AioRpcError) -> bool:
    """Whether the server failed, or stopped before it began the call (CANCELLED, grpc 41785).

    A proxy reports that as INTERNAL; an INTERNAL of a charlm server has details.
    """
    has_details = any(key == STATUS_DETAILS for key, _ in error.trailing_metadata() or ())
    is_proxys_word = error.code() is grpc.StatusCode.INTERNAL and not has_details
    return error.code() in _GONE or is_proxys_word


def _was_drained(chunk: Chunk) -> bool:
    return chunk.end is not None and chunk.end.finish_reason is DRAINED


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
