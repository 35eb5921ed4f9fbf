"""Splits a text into frames, and converts frames from and to rows of the range coder."""

from binascii import crc32
from collections.abc import Iterator, Sequence

from charlm_model.compression.byte_escape import EscapingTokenizer
from charlm_model.compression.frames import Frame
from charlm_model.compression.range_coding import FRAME_BYTES, DecodingRow, EncodingRow


class FrameSplitter:
    """Splits a text that arrives in pieces of any size into frames, between characters."""

    def __init__(self, size: int = FRAME_BYTES) -> None:
        self._size = size
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Complete frames; `rest` returns the last one, which is empty only for no text."""
        self._buffer += data
        while len(self._buffer) > self._size:
            end = self._end()
            yield bytes(self._buffer[:end])
            del self._buffer[:end]

    def rest(self) -> bytes:
        return bytes(self._buffer)

    def _end(self) -> int:
        """The start of the character at the bound; the bound itself if the bytes are not UTF-8."""
        for end in range(self._size, max(self._size - 4, 0), -1):
            if self._buffer[end] & 0xC0 != 0x80:
                return end
        return self._size


def encoding_rows(tokenizer: EscapingTokenizer, pieces: Sequence[bytes]) -> list[EncodingRow]:
    return [EncodingRow(tokenizer.encode(piece)) for piece in pieces]


def decoding_rows(frames: Sequence[Frame]) -> list[DecodingRow]:
    return [DecodingRow(frame.payload, frame.num_tokens) for frame in frames]


def frames_from(
    rows: Sequence[EncodingRow], pieces: Sequence[bytes], first: int, *, is_end: bool
) -> list[Frame]:
    """Frames of encoded rows, numbered from `first`; with `is_end` the last ends the stream."""
    return [
        Frame(
            number=first + at,
            num_tokens=row.num_tokens,
            text_checksum=crc32(piece),
            payload=row.payload(),
            is_last=is_end and at == len(rows) - 1,
        )
        for at, (row, piece) in enumerate(zip(rows, pieces, strict=True))
    ]


def text_from(tokenizer: EscapingTokenizer, frame: Frame, row: DecodingRow) -> bytes | None:
    """The decoded text of a frame; None if its checksum differs from the compressed text's."""
    data = tokenizer.decode(row.escaped)
    return data if crc32(data) == frame.text_checksum else None
