"""Vocabularies of characters and of bytes. Imports no torch.

Id 0 is always the end of text, which is also the input before a text's first token.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm_model.errors import InvalidUtf8, UnknownCharacter

END_OF_TEXT_ID = 0
REPLACEMENTS = ("\N{REPLACEMENT CHARACTER}", " ")

UnknownPolicy = Literal["error", "replace"]
Ids = NDArray[np.int64]


class Vocabulary(Protocol):
    """The ordered tokens of a model; converts text to ids and back."""

    kind: str

    @property
    def size(self) -> int:
        """Number of tokens, with the end of text."""

    def encode(self, text: str, *, unknown: UnknownPolicy = "error") -> list[int]:
        """Token ids. Raises UnknownCharacter unless `unknown` is 'replace'."""

    def encode_array(self, text: str, *, unknown: UnknownPolicy = "error") -> Ids:
        """The same as an array, for long texts."""

    def encode_bytes(self, data: bytes, *, unknown: UnknownPolicy = "error") -> list[int]:
        """Token ids of bytes. Raises InvalidUtf8 unless every byte is a token."""

    def encode_with_offsets(
        self, text: str, *, unknown: UnknownPolicy = "error"
    ) -> tuple[list[int], list[int]]:
        """Token ids, and the offset of each in the text (in characters)."""

    def num_settled(self, text: str) -> int:
        """How many leading characters have ids that no later text can change."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text; bytes that are not UTF-8 become U+FFFD, ends of text are dropped."""

    def token_bytes(self, token_id: int) -> bytes:
        """The exact UTF-8 bytes of one token; empty for the end of text."""

    def to_json(self) -> dict[str, Any]:
        """The content of `vocabulary.json`."""


class CharVocabulary:
    """One token per code point of the training text, in code point order."""

    kind = "char"

    def __init__(self, characters: str) -> None:
        is_text = isinstance(characters, str) and not any(map(_is_surrogate, characters))
        if not is_text or not characters or len(set(characters)) != len(characters):
            raise ValueError("a vocabulary needs distinct characters, and at least one")
        self.characters = characters
        self._id_of = {character: id for id, character in enumerate(characters, start=1)}
        self._replacement_id = next(
            (self._id_of[known] for known in REPLACEMENTS if known in self._id_of), 1
        )
        self._table = np.zeros(max(map(ord, characters)) + 2, dtype=np.int64)
        for character, token_id in self._id_of.items():
            self._table[ord(character)] = token_id

    @classmethod
    def from_text(cls, text: str) -> "CharVocabulary":
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        return len(self.characters) + 1

    def encode(self, text: str, *, unknown: UnknownPolicy = "error") -> list[int]:
        ids: list[int] = self.encode_array(text, unknown=unknown).tolist()
        return ids

    def encode_array(self, text: str, *, unknown: UnknownPolicy = "error") -> Ids:
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        ids = self._table[np.minimum(code_points, len(self._table) - 1)]
        is_unknown = ids == END_OF_TEXT_ID
        if is_unknown.any():
            if unknown == "error":
                offset = int(is_unknown.argmax())
                raise UnknownCharacter(text[offset], offset)
            ids[is_unknown] = self._replacement_id
        return ids

    def encode_bytes(self, data: bytes, *, unknown: UnknownPolicy = "error") -> list[int]:
        return self.encode(text_from(data), unknown=unknown)

    def encode_with_offsets(
        self, text: str, *, unknown: UnknownPolicy = "error"
    ) -> tuple[list[int], list[int]]:
        return self.encode(text, unknown=unknown), list(range(len(text)))

    def num_settled(self, text: str) -> int:
        return len(text)  # each character is encoded by itself

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[token_id - 1] for token_id in ids if token_id)

    def token_bytes(self, token_id: int) -> bytes:
        return self.decode([token_id]).encode()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters}


class ByteVocabulary:
    """One token per byte of UTF-8: nothing is ever unknown."""

    kind = "byte"
    size = 257

    def encode(self, text: str, *, unknown: UnknownPolicy = "error") -> list[int]:
        return self.encode_bytes(text.encode())

    def encode_array(self, text: str, *, unknown: UnknownPolicy = "error") -> Ids:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) + 1

    def encode_bytes(self, data: bytes, *, unknown: UnknownPolicy = "error") -> list[int]:
        return [byte + 1 for byte in data]

    def encode_with_offsets(
        self, text: str, *, unknown: UnknownPolicy = "error"
    ) -> tuple[list[int], list[int]]:
        offsets = [
            offset for offset, character in enumerate(text) for _ in range(len(character.encode()))
        ]
        return self.encode(text), offsets

    def num_settled(self, text: str) -> int:
        return len(text)  # each character is encoded by itself

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token_id - 1 for token_id in ids if token_id).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id - 1]) if token_id else b""

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind}


def _is_surrogate(character: str) -> bool:
    """Whether this is half of a UTF-16 character, which is not a character by itself."""
    return "\ud800" <= character <= "\udfff"


def text_from(data: bytes) -> str:
    """The text of UTF-8 bytes. Raises InvalidUtf8 with the offset of the first wrong byte."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidUtf8(error.start) from None
