"""The format of compressed text: a header, then independent frames with checksums.

    header  "CLM1", 8 bytes of the checkpoint's digest, 4 of a hash of the arithmetic, CRC-32 of all
    frame   kind (1), number (4), tokens (2), payload in words of 4 bytes (2), CRC-32 of the text,
            CRC-32 of all that precedes and of the payload, CRC-16 of all that precedes; payload

Numbers are little-endian. The last frame has a kind of its own, so that truncation is detected.
"""

import hashlib
import struct
from binascii import crc32, crc_hqx
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"CLM1"
_HEADER = struct.Struct("<4s8s4sI")
_FRAME = struct.Struct("<BIHHIIH")
_MORE, _LAST = 0xC5, 0xC6
HEADER_BYTES, FRAME_HEAD_BYTES = _HEADER.size, _FRAME.size
MAX_MISSING = 1 << 16  # frames that can be missing at once; a larger number is taken for damage


@dataclass(frozen=True, slots=True)
class Header:
    """Identifies the model and arithmetic of a stream."""

    model: bytes
    numerics: bytes

    @classmethod
    def of(cls, digest: str, numerics: str) -> "Header":
        """From a checkpoint's hexadecimal digest and the arithmetic's name."""
        return cls(bytes.fromhex(digest)[:8], hashlib.sha256(numerics.encode()).digest()[:4])

    def to_bytes(self) -> bytes:
        covered = MAGIC + self.model + self.numerics
        return covered + struct.pack("<I", crc32(covered))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Header | None":
        """None if the bytes are not an intact header."""
        if len(data) != HEADER_BYTES:
            return None
        magic, model, numerics, checksum = _HEADER.unpack(data)
        is_whole = magic == MAGIC and checksum == crc32(data[:-4])
        return cls(model, numerics) if is_whole else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of text, compressed on its own; `offset` is its start in the stream."""

    number: int
    num_tokens: int
    text_checksum: int
    payload: bytes
    is_last: bool
    offset: int = 0

    def to_bytes(self) -> bytes:
        kind = _LAST if self.is_last else _MORE
        sizes = (self.number, self.num_tokens, len(self.payload) // 4)
        covered = struct.pack("<BIHHI", kind, *sizes, self.text_checksum)
        covered += struct.pack("<I", crc32(self.payload, crc32(covered)))
        return covered + struct.pack("<H", crc_hqx(covered, 0)) + self.payload


@dataclass(frozen=True, slots=True)
class Damage:
    """A frame that is damaged or missing, and its expected offset."""

    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class _Broken:
    """Bytes that are not a valid frame; `num_bytes` is known if its head is intact."""

    num_bytes: int = 1
    has_head: bool = False
    is_last: bool = False


class Deframer:
    """Parses frames from a stream (without its header) that arrives in pieces of any size.

    After a damaged head it searches for the next valid frame, so that a wrong length costs no more
    than one frame. It buffers at most one frame and one piece.
    """

    def __init__(self, offset: int = HEADER_BYTES) -> None:
        self._buffer = bytearray()
        self._offset = offset  # of the buffer within the stream
        self._number = 0  # of the frame to come
        self._lost_at: int | None = None
        self._is_ended = False

    def feed(self, data: bytes) -> Iterator[Frame | Damage]:
        self._buffer += data
        yield from self._parse(at_end=False)

    def finish(self) -> Iterator[Frame | Damage]:
        """End of the data: a stream without its last frame was truncated."""
        yield from self._parse(at_end=True)
        if self._lost_at is not None or not self._is_ended:
            where = self._offset if self._lost_at is None else self._lost_at
            yield Damage(self._number, where)

    def _parse(self, *, at_end: bool) -> Iterator[Frame | Damage]:
        start = 0
        while start < len(self._buffer):
            found = self._frame_at(start)
            if found is None and not at_end and not self._is_ended:
                break
            if isinstance(found, Frame) and self._fits(found):
                yield from self._accept(found)
                start += FRAME_HEAD_BYTES + len(found.payload)
            elif isinstance(found, _Broken) and found.has_head and self._lost_at is None:
                yield Damage(self._number, self._offset + start)
                self._number += 1
                self._is_ended = found.is_last
                start += found.num_bytes
            else:
                self._lost_at = self._offset + start if self._lost_at is None else self._lost_at
                start = self._next_mark(start + 1)
        start = min(start, len(self._buffer))
        self._offset += start
        del self._buffer[:start]

    def _frame_at(self, start: int) -> Frame | _Broken | None:
        """The frame at an offset of the buffer; None if more data is needed to tell."""
        if self._buffer[start] not in (_MORE, _LAST):
            return _Broken()
        head = bytes(self._buffer[start : start + FRAME_HEAD_BYTES])
        if len(head) < FRAME_HEAD_BYTES:
            return None
        kind, number, num_tokens, num_words, of_text, of_all, of_head = _FRAME.unpack(head)
        if of_head != crc_hqx(head[:-2], 0):
            return _Broken()
        end = start + FRAME_HEAD_BYTES + 4 * num_words
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[start + FRAME_HEAD_BYTES : end])
        if of_all != crc32(payload, crc32(head[:-6])):
            return _Broken(end - start, has_head=True, is_last=kind == _LAST)
        return Frame(number, num_tokens, of_text, payload, kind == _LAST, self._offset + start)

    def _fits(self, frame: Frame) -> bool:
        is_ahead = self._number <= frame.number <= self._number + MAX_MISSING
        return is_ahead and not self._is_ended

    def _accept(self, frame: Frame) -> Iterator[Frame | Damage]:
        """The frame, after Damage for each frame missing before it."""
        if self._lost_at is not None or frame.number > self._number:
            where = frame.offset if self._lost_at is None else self._lost_at
            for number in range(self._number, max(frame.number, self._number + 1)):
                yield Damage(number, where)
        self._lost_at, self._number, self._is_ended = None, frame.number + 1, frame.is_last
        yield frame

    def _next_mark(self, start: int) -> int:
        """The next byte that may begin a frame, or the end of the buffer."""
        places = [self._buffer.find(kind, start) for kind in (_MORE, _LAST)]
        return min((place for place in places if place >= 0), default=len(self._buffer))
