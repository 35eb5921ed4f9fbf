"""Splits a text into frames, and converts frames from and to rows of the range coder."""

from binascii import crc32
from collections.abc import Iterator, Sequence

from charlm_model.compression.byte_escape import EscapingTokenizer
from charlm_model.compression.frames import FRAME_BYTES, Frame
from charlm_model.compression.range_coding import DecodingRow, EncodingRow


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
    """A row for each frame; a stored frame has no tokens to decode."""
    return [DecodingRow(b"", 0) if f.is_stored else DecodingRow(f.payload, f.size) for f in frames]


def frames_from(
    rows: Sequence[EncodingRow], pieces: Sequence[bytes], first: int, *, is_end: bool
) -> list[Frame]:
    """Frames of encoded rows, numbered from `first`; with `is_end` the last ends the stream.

    A text that coding makes longer, such as noise, is stored uncompressed.
    """
    return [
        _frame_of(row, piece, first + at, is_last=is_end and at == len(rows) - 1)
        for at, (row, piece) in enumerate(zip(rows, pieces, strict=True))
    ]


def _frame_of(row: EncodingRow, piece: bytes, number: int, *, is_last: bool) -> Frame:
    coded, stored = row.payload(), piece + bytes(-len(piece) % 4)
    is_stored = len(stored) < len(coded)
    return Frame(
        number=number,
        size=len(piece) if is_stored else row.num_tokens,
        text_checksum=crc32(piece),
        payload=stored if is_stored else coded,
        is_last=is_last,
        is_stored=is_stored,
    )


def text_from(tokenizer: EscapingTokenizer, frame: Frame, row: DecodingRow) -> bytes | None:
    """The decoded text of a frame; None if its checksum differs from the compressed text's."""
    data = frame.stored_text if frame.is_stored else tokenizer.decode(row.escaped)
    return data if crc32(data) == frame.text_checksum else None
