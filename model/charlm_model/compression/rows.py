"""Around the coder: a text's bytes cut into frames, frames made of rows, rows read from frames."""

from binascii import crc32
from collections.abc import Iterator, Sequence

from charlm_model.compression.byte_escape import EscapingTokenizer
from charlm_model.compression.frames import Frame
from charlm_model.compression.range_coding import FRAME_BYTES, DecodingRow, EncodingRow


class FrameSplitter:
    """Pieces of text of one frame each, whatever the pieces it came in; characters stay whole."""

    def __init__(self, size: int = FRAME_BYTES) -> None:
        self._size = size
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Whole pieces; something always stays for the last one, unless there was nothing."""
        self._buffer += data
        while len(self._buffer) > self._size:
            end = self._end()
            yield bytes(self._buffer[:end])
            del self._buffer[:end]

    def rest(self) -> bytes:
        return bytes(self._buffer)

    def _end(self) -> int:
        """Before the character that the bound would cut; in what is no UTF-8, at the bound."""
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
    """The frames of rows that were encoded, numbered from `first`; the end is the last one's."""
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
    """The text of a frame that was decoded; None if it is not the one that was compressed."""
    data = tokenizer.decode(row.escaped)
    return data if crc32(data) == frame.text_checksum else None
