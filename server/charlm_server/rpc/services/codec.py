"""CodecService: convert, call, convert."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from charlm.v1 import codec_pb2 as pb
from charlm.v1 import codec_pb2_grpc as pb_grpc
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.call_helpers import deadline_of
from charlm_server.rpc.convert.models import numerics_from
from charlm_server.tasks.compression import Compressor, Decompressor, Totals
from charlm_server.tasks.search_series import SearchSeries

MAX_DATA_BYTES = 1 << 20  # of one request, and of one response

Request = TypeVar("Request", pb.CompressRequest, pb.DecompressRequest)


class CodecService(pb_grpc.CodecServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    async def Compress(
        self,
        request_iterator: AsyncIterator[pb.CompressRequest],
        context: grpc.aio.ServicerContext[pb.CompressRequest, pb.CompressResponse],
    ) -> AsyncIterator[pb.CompressResponse]:
        first = await _first(request_iterator)
        model = call_of(context).use(self._models.get(first.model))
        compressor = Compressor(series_of(context, model))
        async with aclosing(compressor.run(_data(first, request_iterator))) as made:
            async for data in made:
                for piece in _sendable(data):
                    yield pb.CompressResponse(data=piece)
        yield pb.CompressResponse(totals=_totals_from(compressor.totals, model))

    async def Decompress(
        self,
        request_iterator: AsyncIterator[pb.DecompressRequest],
        context: grpc.aio.ServicerContext[pb.DecompressRequest, pb.DecompressResponse],
    ) -> AsyncIterator[pb.DecompressResponse]:
        first = await _first(request_iterator)
        model = call_of(context).use(self._models.get(first.model))
        decompressor = Decompressor(
            series_of(context, model), skips_damaged=first.skip_damaged_frames
        )
        async with aclosing(decompressor.run(_data(first, request_iterator))) as parts:
            async for part in parts:
                if part.damaged:
                    yield _damaged_from(part.damaged)
                for piece in _sendable(part.data):
                    yield pb.DecompressResponse(data=piece)
        yield pb.DecompressResponse(totals=_totals_from(decompressor.totals, model))


def _damaged_from(frames: range) -> pb.DecompressResponse:
    ranges = [pb.FrameRange(first=frames.start, count=len(frames))]
    return pb.DecompressResponse(damaged_frames=[frames.start], damaged_ranges=ranges)


def series_of(context: Any, model: LoadedModel) -> SearchSeries:
    return SearchSeries(model, deadline_of(context, model), call_of(context))


async def _first(requests: AsyncIterator[Request]) -> Request:
    """The first message. Raises InvalidRequest if the caller sent none."""
    async for request in requests:
        return request
    raise InvalidRequest("model", Described("unset"), "set in the first message")


async def _data(first: Request, requests: AsyncIterator[Request]) -> AsyncIterator[bytes]:
    """The data of each message. Raises InvalidRequest."""
    yield _checked(first)
    async for request in requests:
        if request.model:
            raise InvalidRequest("model", request.model, "empty after the first message")
        yield _checked(request)


def _checked(request: Request) -> bytes:
    num_bytes = len(request.data)
    if num_bytes > MAX_DATA_BYTES:
        raise InvalidRequest(
            "data", Described(f"{num_bytes} bytes"), f"at most {MAX_DATA_BYTES} bytes"
        )
    return bytes(request.data)


def _sendable(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), MAX_DATA_BYTES):
        yield data[start : start + MAX_DATA_BYTES]


def _totals_from(totals: Totals, model: LoadedModel) -> pb.CodecTotals:
    return pb.CodecTotals(
        num_text_bytes=totals.num_text_bytes,
        num_compressed_bytes=totals.num_compressed_bytes,
        num_frames=totals.num_frames,
        model_bits=totals.model_bits,
        model_digest=model.checkpoint.digest,
        numerics=numerics_from(model),
    )
