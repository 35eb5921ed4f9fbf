"""Encodes a text that arrives in pieces to the token ids of the whole text."""

import codecs

import numpy as np

from charlm_model.errors import InvalidUtf8, UnknownCharacter
from charlm_model.text.vocabulary import ByteVocabulary, Ids, UnknownPolicy, Vocabulary


class IncrementalEncoder:
    """Holds back only text whose ids later text could change: a character, or several pieces.

    Errors give offsets in the whole text.
    """

    def __init__(self, vocabulary: Vocabulary, *, unknown: UnknownPolicy = "error") -> None:
        self._vocabulary, self._unknown = vocabulary, unknown
        self._is_of_bytes = isinstance(vocabulary, ByteVocabulary)  # whose input need not be UTF-8
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._held = ""
        self._num_bytes = 0
        self._num_characters = 0  # encoded so far

    def feed(self, data: bytes, *, is_last: bool = False) -> Ids:
        """The ids that more text settles. Raises InvalidUtf8, UnknownCharacter."""
        if self._is_of_bytes:
            return np.array(self._vocabulary.encode_bytes(data), dtype=np.int64)
        text = self._held + self._decoded(data, is_last=is_last)
        num_settled = len(text) if is_last else self._vocabulary.num_settled(text)
        ids = self._encoded(text[:num_settled])
        self._held = text[num_settled:]
        self._num_characters += num_settled
        return ids

    def _decoded(self, data: bytes, *, is_last: bool) -> str:
        pending, _ = self._utf8.getstate()
        try:
            text = self._utf8.decode(data, is_last)
        except UnicodeDecodeError as error:
            raise InvalidUtf8(self._num_bytes - len(pending) + error.start) from None
        self._num_bytes += len(data)
        return text

    def _encoded(self, text: str) -> Ids:
        try:
            return self._vocabulary.encode_array(text, unknown=self._unknown)
        except UnknownCharacter as error:
            offset = self._num_characters + error.offset
            raise UnknownCharacter(error.character, offset) from None
