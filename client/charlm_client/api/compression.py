"""Compression and decompression as streams of bytes in both directions."""

from __future__ import annotations  # gRPC's calls are generic for type checkers only

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from charlm.v1 import codec_pb2 as pb
from charlm_client.wire.first_status import FirstStatus
from charlm_client.wire.request_stream import RequestStream
from charlm_client.wire.status_errors import translated
from charlm_client.wire.to_proto import model_name

DEFAULT_CODEC_TIMEOUT_S = 3600.0  # streams last as long as their files are large
_MAX_DATA_BYTES = 1 << 20  # of one message

Pieces = bytes | Iterable[bytes] | AsyncIterable[bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class CodecTotals:
    """Totals of one call. `model_bits` is the cross-entropy under the model, in bits."""

    num_text_bytes: int
    num_compressed_bytes: int
    num_frames: int
    model_bits: float
    model_digest: str
    numerics: str

    @property
    def bits_per_byte(self) -> float:
        """Compressed size in bits for each byte of text; 0 for no text."""
        return 8 * self.num_compressed_bytes / self.num_text_bytes if self.num_text_bytes else 0.0

    @property
    def model_bits_per_byte(self) -> float:
        """Cross-entropy under the model for each byte of text, in bits; 0 for no text."""
        return self.model_bits / self.num_text_bytes if self.num_text_bytes else 0.0


class CodecStream:
    """The bytes of the result in order, cut anywhere. `totals` is set after the last ones."""

    def __init__(
        self, requests: AsyncIterator[Any], start_call: Callable[[Any], Any], address: str
    ) -> None:
        self._address = address
        self._requests_sent = RequestStream(requests)
        self._call = start_call(self._requests_sent)
        self._status = FirstStatus(self._call)
        self.totals: CodecTotals | None = None
        self.damaged_frames: list[range] = []
        """Frames that were damaged or missing and are skipped, as ranges of numbers from 0."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._requests_sent.raising_failures(), translated(self._address, self._status):
            try:
                async for response in self._call:
                    for found in getattr(response, "damaged_ranges", ()):
                        self.damaged_frames.append(range(found.first, found.first + found.count))
                    if response.HasField("totals"):
                        self.totals = _totals_from(response.totals)
                    if response.data:
                        yield response.data
            finally:
                self._call.cancel()  # harmless when it is over

    async def read(self) -> bytes:
        """All bytes."""
        return b"".join([data async for data in self])


async def compress_messages(pieces: Pieces, model: str) -> AsyncIterator[pb.CompressRequest]:
    yield pb.CompressRequest(model=model_name(model))
    async for data in sendable(pieces):
        yield pb.CompressRequest(data=data)


async def decompress_messages(
    pieces: Pieces, model: str, *, skip_damaged_frames: bool
) -> AsyncIterator[pb.DecompressRequest]:
    yield pb.DecompressRequest(
        model=model_name(model), skip_damaged_frames=skip_damaged_frames or None
    )
    async for data in sendable(pieces):
        yield pb.DecompressRequest(data=data)


async def sendable(pieces: Pieces) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at most one message."""
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            for data in _cut(piece):
                yield data
    else:
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            for data in _cut(piece):
                yield data


def _cut(piece: bytes) -> Iterator[bytes]:
    for start in range(0, len(piece), _MAX_DATA_BYTES):
        yield piece[start : start + _MAX_DATA_BYTES]


def _totals_from(totals: pb.CodecTotals) -> CodecTotals:
    return CodecTotals(
        num_text_bytes=totals.num_text_bytes,
        num_compressed_bytes=totals.num_compressed_bytes,
        num_frames=totals.num_frames,
        model_bits=totals.model_bits,
        model_digest=totals.model_digest,
        numerics=totals.numerics.id,
    )
