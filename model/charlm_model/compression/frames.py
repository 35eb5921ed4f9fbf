"""The format of compressed text: a header, then independent frames with checksums.

    header  "CLM2", 8 bytes of the checkpoint's digest, 20 that name the arithmetic, CRC-32 of all
    frame   kind (1), number (4), size (2), payload in words of 4 bytes (2), CRC-32 of the text,
            CRC-32 of all that precedes and of the payload, CRC-16 of all that precedes; payload

The kind says whether the payload is coded, and then the size counts tokens, or the text itself,
and then the size counts bytes; and whether the frame is the last, which tells a whole stream from
a truncated one. Numbers are little-endian.
"""

import hashlib
import re
import struct
from binascii import crc32, crc_hqx
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MAGIC = b"CLM2"
FRAME_BYTES = 16_384  # of text, at most; every token spells a byte or more
_NUMERICS_BYTES = 20
_HEADER = struct.Struct(f"<4s8s{_NUMERICS_BYTES}sI")
_FRAME = struct.Struct("<BIHHIIH")
_CODED, _LAST_CODED, _STORED, _LAST_STORED = KINDS = 0xC5, 0xC6, 0xC7, 0xC8
_MARK = re.compile(rb"[\xc5-\xc8]")
HEADER_BYTES, FRAME_HEAD_BYTES = _HEADER.size, _FRAME.size
MAX_MISSING = 1 << 16  # frames that can be missing at once; a larger number is taken for damage
# Where frames are looked for after damage: noise has a mark every 64 bytes, a hostile text more.
_FREE_TRIES, _BYTES_PER_TRY = 4096, 16
_CHECKED_BYTES_PER_TRY = 1024


@dataclass(frozen=True, slots=True)
class Header:
    """Identifies the model and arithmetic of a stream."""

    model: bytes
    numerics: str

    @classmethod
    def of(cls, digest: str, numerics: str) -> "Header":
        """From a checkpoint's hexadecimal digest and the name of an arithmetic.

        A name that is too long is cut, and ends in 8 digits of its SHA-256.
        """
        if len(numerics) > _NUMERICS_BYTES:
            cut = numerics[: _NUMERICS_BYTES - 9]
            numerics = f"{cut}~{hashlib.sha256(numerics.encode()).hexdigest()[:8]}"
        return cls(bytes.fromhex(digest)[:8], numerics)

    def to_bytes(self) -> bytes:
        covered = MAGIC + self.model + self.numerics.encode("ascii").ljust(_NUMERICS_BYTES, b"\0")
        return covered + struct.pack("<I", crc32(covered))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Header | None":
        """None if the bytes are not an intact header."""
        if len(data) != HEADER_BYTES:
            return None
        magic, model, numerics, checksum = _HEADER.unpack(data)
        name = numerics.rstrip(b"\0").decode("ascii", "replace")
        is_whole = magic == MAGIC and checksum == crc32(data[:-4]) and name.isprintable()
        return cls(model, name) if is_whole else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of text, compressed on its own; `offset` is its start in the stream."""

    number: int
    size: int
    """Tokens of a coded payload; bytes of a stored one."""
    text_checksum: int
    payload: bytes
    is_last: bool
    is_stored: bool = False
    offset: int = 0

    @property
    def num_bytes(self) -> int:
        return FRAME_HEAD_BYTES + len(self.payload)

    @property
    def stored_text(self) -> bytes:
        return self.payload[: self.size]

    def to_bytes(self) -> bytes:
        kind = KINDS[2 * self.is_stored + self.is_last]
        sizes = (self.number, self.size, len(self.payload) // 4)
        covered = struct.pack("<BIHHI", kind, *sizes, self.text_checksum)
        covered += struct.pack("<I", crc32(self.payload, crc32(covered)))
        return covered + struct.pack("<H", crc_hqx(covered, 0)) + self.payload


@dataclass(frozen=True, slots=True)
class Damage:
    """`count` frames from `number` on that are damaged or missing, and their expected offset.

    The count is 0 for extra bytes between frames of which none is missing.
    """

    number: int
    count: int
    offset: int


class Deframer:
    """Parses frames from a stream (without its header) that arrives in pieces of any size.

    After damage it looks for the next place that holds a whole frame, so that damage costs the
    frames it hit and no other; unless it skips damage, it ends there. It holds no more than one
    frame and one piece, and looks at no more places than a bound that grows with the stream: after
    that it reads nothing more.
    """

    def __init__(self, offset: int = HEADER_BYTES, *, skips_damage: bool = True) -> None:
        self._skips_damage = skips_damage
        self._buffer = bytearray()
        self._offset = offset  # of the buffer within the stream
        self._number = 0  # of the frame to come
        self._end = 1  # the number after the highest that a whole head told
        self._lost_at: int | None = None
        self._is_ended = False
        self._num_fed = 0
        self._num_tries = 0  # places that were looked at and hold no frame

    def feed(self, data: bytes) -> Iterator[Frame | Damage]:
        self._buffer += data
        self._num_fed += len(data)
        yield from self._parse(at_end=False)

    def finish(self) -> Iterator[Frame | Damage]:
        """End of the data: a stream without its last frame was truncated."""
        yield from self._parse(at_end=True)
        if not self._is_ended:
            where = self._offset if self._lost_at is None else self._lost_at
            yield Damage(self._number, max(1, self._end - self._number), where)
        elif self._lost_at is not None:
            yield Damage(self._number, 0, self._lost_at)

    def _parse(self, *, at_end: bool) -> Iterator[Frame | Damage]:
        start = 0
        while start < len(self._buffer):
            found = self._frame_at(start)
            if found is None and not at_end:
                break
            if found:
                yield from self._accept(found)
                start += found.num_bytes
                continue
            self._num_tries += 1
            if self._lost_at is None:
                self._lost_at = self._offset + start
                if not self._skips_damage:
                    yield Damage(self._number, 1, self._lost_at)
            start = self._next_mark(start + 1) if self._may_look() else len(self._buffer)
        start = min(start, len(self._buffer))
        self._offset += start
        del self._buffer[:start]

    def _may_look(self) -> bool:
        """Whether to look for a frame after damage."""
        is_bounded = self._num_tries < _FREE_TRIES + self._num_fed // _BYTES_PER_TRY
        return self._skips_damage and is_bounded and not self._is_ended

    def _frame_at(self, start: int) -> Frame | Literal[False] | None:
        """The frame that begins here; False for none, None while that cannot be told."""
        if self._lost_at is not None and not self._may_look():
            return False
        if self._is_ended or self._buffer[start] not in KINDS:
            return False
        head = bytes(self._buffer[start : start + FRAME_HEAD_BYTES])
        if len(head) < FRAME_HEAD_BYTES:
            return None
        kind, number, size, num_words, of_text, of_all, of_head = _FRAME.unpack(head)
        is_near = self._number <= number <= self._number + MAX_MISSING
        if not is_near or size > FRAME_BYTES or of_head != crc_hqx(head[:-2], 0):
            return False
        end = start + FRAME_HEAD_BYTES + 4 * num_words
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[start + FRAME_HEAD_BYTES : end])
        if of_all != crc32(payload, crc32(head[:-6])):
            self._num_tries += len(payload) // _CHECKED_BYTES_PER_TRY
            self._end = max(self._end, number + 1)
            return False
        is_last, is_stored = kind in (_LAST_CODED, _LAST_STORED), kind in (_STORED, _LAST_STORED)
        where = self._offset + start
        return Frame(number, size, of_text, payload, is_last, is_stored, where)

    def _accept(self, frame: Frame) -> Iterator[Frame | Damage]:
        """The frame, after what stood or is missing before it."""
        num_missing = frame.number - self._number
        if num_missing or self._lost_at is not None:
            where = frame.offset if self._lost_at is None else self._lost_at
            yield Damage(self._number, num_missing, where)
        self._lost_at, self._number, self._is_ended = None, frame.number + 1, frame.is_last
        yield frame

    def _next_mark(self, start: int) -> int:
        """The next byte that may begin a frame, or the end of what there is."""
        mark = _MARK.search(self._buffer, start)
        return len(self._buffer) if mark is None else mark.start()
