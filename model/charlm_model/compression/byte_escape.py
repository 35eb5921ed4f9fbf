"""Encodes any bytes as tokens of any vocabulary, without loss: unknown bytes are escaped."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from charlm_model.text.vocabulary import END_OF_TEXT_ID, Vocabulary

MAX_RUN = 256  # bytes after one escape; their number minus 1 fits one byte
_FIRST_SURROGATE, _LAST_SURROGATE = "\ud800", "\udfff"


@dataclass(frozen=True, slots=True)
class EscapedTokens:
    """Tokens, and the bytes that each end-of-text token among them stands for, in order.

    The end of text never occurs within a text, so it serves as the escape.
    """

    ids: list[int]
    runs: list[bytes]


class EscapingTokenizer:
    """A lossless tokenizer of bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._token_bytes = [vocabulary.token_bytes(token) for token in range(vocabulary.size)]
        self._is_known = _known_by(vocabulary.kind, self._token_bytes)

    def encode(self, data: bytes) -> EscapedTokens:
        if self._vocabulary.kind == "byte":
            return EscapedTokens(self._vocabulary.encode_bytes(data), [])
        ids: list[int] = []
        runs: list[bytes] = []
        # Bytes that are not UTF-8 become surrogates, which no vocabulary has.
        for is_known, characters in groupby(
            data.decode("utf-8", "surrogateescape"), self._is_known
        ):
            text = "".join(characters)
            spelling = self._vocabulary.encode(text) if is_known else []
            if not self._is_faithful(spelling, text):
                new_runs = list(_runs_of(text.encode("utf-8", "surrogateescape")))
                spelling = [END_OF_TEXT_ID] * len(new_runs)
                runs += new_runs
            ids += spelling
        return EscapedTokens(ids, runs)

    def decode(self, escaped: EscapedTokens) -> bytes:
        runs = iter(escaped.runs)
        return b"".join(
            next(runs) if token_id == END_OF_TEXT_ID else self._token_bytes[token_id]
            for token_id in escaped.ids
        )

    def _is_faithful(self, ids: Sequence[int], text: str) -> bool:
        """Whether the ids decode to exactly this text; sentencepiece may normalize it."""
        if not ids or END_OF_TEXT_ID in ids:
            return False
        decoded = b"".join(self._token_bytes[token_id] for token_id in ids)
        return decoded == text.encode("utf-8", "surrogateescape")


def _known_by(kind: str, token_bytes: Sequence[bytes]) -> Callable[[str], bool]:
    if kind == "char":
        return {token.decode() for token in token_bytes[1:]}.__contains__
    return lambda character: not _FIRST_SURROGATE <= character <= _LAST_SURROGATE


def _runs_of(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), MAX_RUN):
        yield data[start : start + MAX_RUN]
