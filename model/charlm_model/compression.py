"""From a text's bytes to frames and back, many frames together.

Legend: V vocabulary.
"""

from binascii import crc32
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from charlm_model.codec import FRAME_BYTES, DecodingRow, EncodingRow, decode_rows, encode_rows
from charlm_model.escape import Speller
from charlm_model.frames import Frame
from charlm_model.state import State
from charlm_model.stepping import Stepper


@dataclass(frozen=True, slots=True)
class Coding:
    """A model at the start of a text: one row of state, and the logits of the first token."""

    stepper: Stepper
    state_1: State
    logits_1V: Tensor
    speller: Speller


@dataclass(frozen=True, slots=True)
class Restored:
    """What a frame held. Its data is None where the text is not the one that was compressed."""

    data: bytes | None
    model_bits: float


class Cutter:
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


def compress(
    coding: Coding, pieces: Sequence[bytes], first: int, *, is_end: bool
) -> Generator[None, None, tuple[list[Frame], float]]:
    """Frames numbered from `first`, and their cross-entropy in bits; yields between bounded steps.

    `is_end` says that the last piece is the last one of the stream.
    """
    spelled = [coding.speller.spell(piece) for piece in pieces]
    rows = [EncodingRow(each) for each in spelled]
    yield from encode_rows(coding.stepper, coding.state_1, coding.logits_1V, rows)
    frames = [
        Frame(
            number=first + at,
            num_tokens=len(spelled[at].ids),
            text_checksum=crc32(pieces[at]),
            payload=row.payload(),
            is_last=is_end and at == len(rows) - 1,
        )
        for at, row in enumerate(rows)
    ]
    return frames, sum(row.model_bits for row in rows)


def decompress(coding: Coding, frames: Sequence[Frame]) -> Generator[None, None, list[Restored]]:
    """The text of each frame; yields between bounded steps."""
    rows = [DecodingRow(frame.payload, frame.num_tokens) for frame in frames]
    yield from decode_rows(coding.stepper, coding.state_1, coding.logits_1V, rows)
    return [_restored(coding, frame, row) for frame, row in zip(frames, rows, strict=True)]


def _restored(coding: Coding, frame: Frame, row: DecodingRow) -> Restored:
    data = coding.speller.unspell(row.spelled)
    is_same = crc32(data) == frame.text_checksum
    return Restored(data if is_same else None, row.model_bits)
