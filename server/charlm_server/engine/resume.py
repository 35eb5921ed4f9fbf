"""Resume tokens: where a stream can go on after it was interrupted.

A token holds no state. A client resumes with the same request and the ids that it received;
reading is exact, so that the state after them has the same bits as on the first server.
"""

import hashlib
import struct
from dataclasses import dataclass

from charlm_server.engine.generation import Origin, Resumption, short_digest
from charlm_server.errors.resume import ResumeMismatch, ResumeTokenDamaged

_VERSION = 1
_LAYOUT = struct.Struct("<B?IQQQQ8s8s16s")
_CHECK_BYTES = 8
TOKEN_BYTES = _LAYOUT.size + _CHECK_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class ResumePosition:
    """A position in one output of a stream, after everything that was shown by then."""

    origin: Origin
    index: int
    num_tokens: int
    num_bytes: int
    num_characters: int
    has_ended: bool
    received: bytes  # 16 bytes, of the ids shown

    def to_token(self) -> bytes:
        body = _LAYOUT.pack(
            _VERSION,
            self.has_ended,
            self.index,
            self.num_tokens,
            self.num_bytes,
            self.num_characters,
            self.origin.seed,
            self.origin.model,
            self.origin.request,
            self.received,
        )
        return body + short_digest(body, _CHECK_BYTES)

    @classmethod
    def from_token(cls, token: bytes) -> "ResumePosition":
        """Raises ResumeTokenDamaged for anything but a complete token."""
        body, check = token[: _LAYOUT.size], token[_LAYOUT.size :]
        if len(token) != TOKEN_BYTES or short_digest(body, _CHECK_BYTES) != check:
            raise ResumeTokenDamaged(len(token), TOKEN_BYTES)
        version, has_ended, index, *counts, seed, model, request, received = _LAYOUT.unpack(body)
        if version != _VERSION:
            raise ResumeMismatch("VERSION")
        return cls(
            origin=Origin(model=model, request=request, seed=seed),
            index=index,
            num_tokens=counts[0],
            num_bytes=counts[1],
            num_characters=counts[2],
            has_ended=has_ended,
            received=received,
        )

    def resumption(self, here: Origin, received_ids: list[int]) -> Resumption:
        """How to go on from here. Raises ResumeMismatch where the stream was another."""
        if self.origin.model != here.model:
            raise ResumeMismatch("MODEL")
        if self.origin.request != here.request or self.origin.seed != here.seed:
            raise ResumeMismatch("REQUEST")
        if not self.has_ended and self.received != ReceivedDigest(received_ids).value:
            raise ResumeMismatch("RECEIVED", f"{len(received_ids)} of {self.num_tokens} tokens")
        return Resumption(
            received_ids=received_ids,
            num_bytes=self.num_bytes,
            num_characters=self.num_characters,
            has_ended=self.has_ended,
        )


class ReceivedDigest:
    """A digest of the ids that a client has received, which grows with them."""

    def __init__(self, ids: list[int]) -> None:
        self._hash = hashlib.sha256()
        self.add(ids)

    def add(self, ids: list[int]) -> None:
        self._hash.update(struct.pack(f"<{len(ids)}I", *ids))

    @property
    def value(self) -> bytes:
        """16 bytes."""
        return self._hash.copy().digest()[:16]
