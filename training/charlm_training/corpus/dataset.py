"""Turns a corpus into the data of a run: a vocabulary and two token files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm_model.errors import UnknownCharacter
from charlm_model.text.incremental import IncrementalEncoder
from charlm_model.text.vocabulary import END_OF_TEXT_ID, Vocabulary
from charlm_training.corpus.reader import Corpus, CorpusStats
from charlm_training.corpus.split import (
    TOO_FEW_LINES,
    Split,
    split_characters,
    split_lines,
    whole_lines,
)
from charlm_training.corpus.token_file import Ids, write_token_file
from charlm_training.corpus.vocabularies import build_vocabulary
from charlm_training.errors import CorpusTooSmall, InvalidOption

UNITS = ("stream", "line")
NO_TEXT = "The corpus has no character; give it some text."


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions:
    """How a corpus is read."""

    unit: str = "stream"
    vocabulary: str = "char"
    vocab_size: int | None = None
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InvalidOption(f"--unit is {self.unit!r}; it must be one of {', '.join(UNITS)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedText:
    """The training or the validation part as tokens on disk.

    `ids_N` begins with the end of text. In lines, every line ends with it too, and that counts
    as the one character that the line end is.
    """

    ids_N: Ids
    num_characters: int
    num_bytes: int
    num_unknown: int
    is_lines: bool = False

    def first(self, num_tokens: int) -> EncodedText:
        """The beginning of this part, as long as that; in lines, up to the end of a line."""
        if num_tokens >= len(self.ids_N) - 1:
            return self
        ids_N = self.ids_N[: max(num_tokens, 2) + 1]
        if self.is_lines:
            edges = np.flatnonzero(ids_N == END_OF_TEXT_ID)
            ids_N = ids_N[: edges[-1] + 1] if len(edges) > 1 else self.ids_N
        share = (len(ids_N) - 1) / (len(self.ids_N) - 1)
        return replace(
            self,
            ids_N=ids_N,
            num_characters=max(round(self.num_characters * share), 1),
            num_bytes=max(round(self.num_bytes * share), 1),
        )

    @property
    def tokens_per_character(self) -> float:
        return (len(self.ids_N) - 1) / self.num_characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A corpus, read and encoded."""

    corpus: Corpus
    stats: CorpusStats
    split: Split
    vocabulary: Vocabulary
    unit: str
    train: EncodedText
    validation: EncodedText

    def notices(self) -> list[str]:
        """One sentence for each change between the file and the tokens."""
        notices = [*self.corpus.notices, *self.stats.notices()]
        if self.validation.num_unknown:
            notices.append(
                f"{self.validation.num_unknown:,} of {self.validation.num_characters:,} validation "
                "characters do not occur in the training part; they were replaced."
            )
        return notices


def split_corpus(corpus: Corpus, stats: CorpusStats, unit: str, fraction: float) -> Split:
    """Split the corpus; the line unit is split between lines."""
    split = split_characters(stats.num_characters, fraction)
    return split_lines(corpus.chunks(), split) if unit == "line" else split


def read_data(corpus: Corpus, stats: CorpusStats, options: DataOptions, directory: Path) -> Data:
    """Split, build the vocabulary from the training part alone, encode both parts."""
    split = split_corpus(corpus, stats, options.unit, options.validation_fraction)
    texts = documents(split.train(corpus.chunks()), options.unit)
    vocabulary = build_vocabulary(options.vocabulary, texts, options.vocab_size)
    encoder = Encoder(vocabulary, options.unit)
    return Data(
        corpus=corpus,
        stats=stats,
        split=split,
        vocabulary=vocabulary,
        unit=options.unit,
        train=encoder.write(split.train(corpus.chunks()), directory / "train.tokens"),
        validation=encoder.write(
            split.validation(corpus.chunks()), directory / "validation.tokens"
        ),
    )


class Encoder:
    """Writes text as token files; unknown characters are replaced and counted."""

    def __init__(self, vocabulary: Vocabulary, unit: str) -> None:
        self._vocabulary, self._unit = vocabulary, unit
        self._knows = lru_cache(maxsize=None)(self._encodes)

    def write(self, chunks: Iterable[str], path: Path) -> EncodedText:
        """Encode chunk by chunk, so that a text of any size fits into memory."""
        counts = np.zeros(3, dtype=np.int64)
        pieces = self._pieces(documents(chunks, self._unit), counts)
        ids_N = write_token_file(path, pieces, self._vocabulary.size)
        if len(ids_N) < 2:
            raise CorpusTooSmall(TOO_FEW_LINES if self._unit == "line" else NO_TEXT)
        num_characters, num_bytes, num_unknown = map(int, counts)
        return EncodedText(
            ids_N=ids_N,
            num_characters=num_characters,
            num_bytes=num_bytes,
            num_unknown=num_unknown,
            is_lines=self._unit == "line",
        )

    def _pieces(self, texts: Iterable[str], counts: npt.NDArray[np.int64]) -> Iterator[Ids]:
        end = np.array([END_OF_TEXT_ID], dtype=np.uint32)
        yield end
        line_end = "\n" if self._unit == "line" else ""
        encoder = IncrementalEncoder(self._vocabulary, unknown="replace")
        for text in texts:
            data = text.encode()
            unknown = sum(text.count(c) for c in set(text) if not self._knows(c))
            counts += (len(text) + len(line_end), len(data) + len(line_end), unknown)
            yield encoder.feed(data, is_last=bool(line_end)).astype(np.uint32)
            if line_end:
                yield end
        yield encoder.feed(b"", is_last=True).astype(np.uint32)

    def _encodes(self, character: str) -> bool:
        try:
            self._vocabulary.encode(character)
        except UnknownCharacter:
            return False
        return True


def documents(chunks: Iterable[str], unit: str) -> Iterator[str]:
    """The pieces that are encoded: chunks of one long text, or every line that is not empty."""
    if unit == "stream":
        yield from chunks
        return
    for lines in whole_lines(chunks):
        yield from lines
