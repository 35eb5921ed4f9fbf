"""The sentencepiece vocabulary: pieces of a few characters, with byte fallback."""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from operator import sub
from typing import Any, Literal

import numpy as np
import sentencepiece

from charlm_model.errors import InvalidConfig
from charlm_model.text.vocabulary import Ids, UnknownPolicy, text_from

# sentencepiece's symbol for a space; the character itself is encoded as bytes.
_SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
# The trainer skips sentences of more bytes, so longer lines are split.
_MAX_SENTENCE_BYTES = 4_000
# Longest stretch of text, in characters, that is encoded at once.
_MAX_STRETCH = 1_024


class SentencePieceVocabulary:
    """Pieces learned from the training text. Token ids are sentencepiece's own: its id 0, the
    unknown piece, never occurs under byte fallback and stands for the end of text.

    Source: Kudo & Richardson (2018).
    """

    kind = "sentencepiece"

    def __init__(self, serialized_model: bytes) -> None:
        self.serialized_model = serialized_model
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=serialized_model)
        self._token_bytes = [
            self._bytes_of_piece(piece_id) for piece_id in range(self._processor.get_piece_size())
        ]
        self._byte_id = {
            data[0]: piece_id
            for piece_id, data in enumerate(self._token_bytes)
            if self._processor.is_byte(piece_id)
        }
        self._joined_pairs = self._find_joined_pairs()

    @classmethod
    def train(
        cls, texts: Iterable[str], size: int, model_type: Literal["unigram", "bpe"] = "unigram"
    ) -> "SentencePieceVocabulary":
        """Learn at most `size` pieces (at least 300: 256 of them are the bytes).

        Raises InvalidConfig when the text cannot yield them.
        """
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_sentences(texts),
                model_writer=model,
                vocab_size=size,
                model_type=model_type,
                byte_fallback=True,
                hard_vocab_limit=False,
                character_coverage=0.9995,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                pad_id=-1,
                max_sentence_length=_MAX_SENTENCE_BYTES * 2,
                num_threads=1,  # the same pieces on every machine
                minloglevel=2,
            )
        except (RuntimeError, OSError) as error:
            raise InvalidConfig(
                f"No sentencepiece vocabulary of {size} pieces can be learned from this text "
                f"({error}). Ask for another size (300 to 8192), or use the char vocabulary."
            ) from None
        return cls(model.getvalue())

    @property
    def size(self) -> int:
        return len(self._token_bytes)

    def encode(self, text: str, *, unknown: UnknownPolicy = "error") -> list[int]:
        """Encode stretch by stretch: in a long text sentencepiece's sums lose precision."""
        cuts = [0, *self._cuts(text), len(text)]
        stretches = [text[start:end] for start, end in pairwise(cuts)]
        distinct = list(dict.fromkeys(stretches))
        found: list[list[int]] = self._processor.encode(distinct, num_threads=1)
        ids_of = dict(zip(distinct, found, strict=True))
        if _SPACE_MARK in ids_of:
            ids_of[_SPACE_MARK] = [self._byte_id[byte] for byte in _SPACE_MARK.encode()]
        return [token_id for stretch in stretches for token_id in ids_of[stretch]]

    def num_settled(self, text: str) -> int:
        return next(reversed(self._cuts(text)), 0)

    def _cuts(self, text: str) -> list[int]:
        """Ascending offsets that no piece can cross, in any context."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        pairs = _pairs_of(points.astype(np.int64))
        places = np.searchsorted(self._joined_pairs, pairs)
        is_joined = self._joined_pairs[np.minimum(places, len(self._joined_pairs) - 1)] == pairs
        cuts: list[int] = (np.flatnonzero(~is_joined) + 1).tolist()
        if max(map(sub, [*cuts, len(text)], [0, *cuts])) <= _MAX_STRETCH:
            return cuts
        edges = pairwise([0, *cuts, len(text)])
        return [cut for start, end in edges for cut in range(start, end, _MAX_STRETCH)][1:]

    def _find_joined_pairs(self) -> Ids:
        """All pairs of neighboring characters in pieces, sorted; never empty."""
        pieces = [
            data.decode()
            for piece_id, data in enumerate(self._token_bytes)
            if not self._processor.is_byte(piece_id)
        ]
        texts = [np.array([ord(character) for character in piece], np.int64) for piece in pieces]
        none = np.array([-1], np.int64)  # no pair of characters is negative
        return np.unique(np.concatenate([none, *map(_pairs_of, texts)]))

    def encode_array(self, text: str, *, unknown: UnknownPolicy = "error") -> Ids:
        return np.array(self.encode(text), dtype=np.int64)

    def encode_bytes(self, data: bytes, *, unknown: UnknownPolicy = "error") -> list[int]:
        return self.encode(text_from(data))

    def encode_with_offsets(
        self, text: str, *, unknown: UnknownPolicy = "error"
    ) -> tuple[list[int], list[int]]:
        ids = self.encode(text)
        widths = [len(character.encode()) for character in text]
        character_of_byte = np.repeat(np.arange(len(text)), widths)
        starts = accumulate((len(self._token_bytes[id]) for id in ids[:-1]), initial=0)
        return ids, [int(character_of_byte[start]) for start in starts] if ids else []

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._token_bytes[token_id] for token_id in ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return self._token_bytes[token_id]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "size": self.size}

    def _bytes_of_piece(self, piece_id: int) -> bytes:
        if self._processor.is_unknown(piece_id):
            return b""
        piece: str = self._processor.id_to_piece(piece_id)
        if self._processor.is_byte(piece_id):
            return bytes([int(piece[3:-1], 16)])  # spelled <0x0A>
        return piece.replace(_SPACE_MARK, " ").encode()


def _pairs_of(points: Ids) -> Ids:
    """Each pair of neighboring characters as one number."""
    pairs: Ids = (points[:-1] << 21) | points[1:]
    return pairs


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            step = _MAX_SENTENCE_BYTES // 4
            for start in range(0, len(line), step):
                yield line[start : start + step]
