"""A codec without a model: the compressed form is the text reversed, behind a mark.

A form that ends in another mark is damaged; its bytes before that arrive first.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from charlm.v1 import codec_pb2, codec_pb2_grpc

MARK = b"FAKE"
DAMAGED = b"DAMAGED"


class FakeCodec(codec_pb2_grpc.CodecServiceServicer):
    def __init__(self, script: Any) -> None:
        self.script = script

    async def Compress(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        text, _ = await self._take(requests, context)
        data = MARK + text[::-1]
        yield codec_pb2.CompressResponse(data=data)
        yield codec_pb2.CompressResponse(totals=totals(text, data))

    async def Decompress(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        data, skips = await self._take(requests, context)
        text = data.removeprefix(MARK).removesuffix(DAMAGED)[::-1]
        yield codec_pb2.DecompressResponse(data=text)
        if data.endswith(DAMAGED):
            if not skips:
                await context.abort(grpc.StatusCode.DATA_LOSS, "frame 1 is damaged")
            yield codec_pb2.DecompressResponse(damaged_ranges=[{"first": 1, "count": 2}])
        yield codec_pb2.DecompressResponse(totals=totals(text, data))

    async def _take(self, requests: Any, context: Any) -> tuple[bytes, bool]:
        data, skips = b"", False
        async for request in requests:
            await self.script.see(request, context)
            data += request.data
            skips |= getattr(request, "skip_damaged_frames", False)
        return data, skips


def totals(text: bytes, data: bytes) -> codec_pb2.CodecTotals:
    """Half a bit of entropy for each byte."""
    return codec_pb2.CodecTotals(
        num_text_bytes=len(text),
        num_compressed_bytes=len(data),
        num_frames=1,
        model_bits=len(text) / 2,
        model_digest="d1",
    )
