"""Builds the vocabulary of a run from the training part of the text only."""

from collections.abc import Callable, Iterable, Iterator

from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary
from charlm_training.errors import InvalidOption

DEFAULT_PIECES = 1024
SMALLEST_PIECES, LARGEST_PIECES = 300, 8192
# Pieces are learned from this much text at most; more of it has the same frequent ones.
PIECE_TRAINING_CHARACTERS = 16_000_000


def _char(texts: Iterable[str], size: int | None) -> Vocabulary:
    _refuse_size(size, "char")
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    return CharVocabulary("".join(sorted(characters)))


def _byte(texts: Iterable[str], size: int | None) -> Vocabulary:
    del texts
    _refuse_size(size, "byte")
    return ByteVocabulary()


def _pieces(texts: Iterable[str], size: int | None) -> Vocabulary:
    size = DEFAULT_PIECES if size is None else size
    if not SMALLEST_PIECES <= size <= LARGEST_PIECES:
        raise InvalidOption(
            f"--vocab-size is {size}; it must be from {SMALLEST_PIECES} to {LARGEST_PIECES}."
        )
    return SentencePieceVocabulary.train(_at_most(texts, PIECE_TRAINING_CHARACTERS), size)


VOCABULARIES: dict[str, Callable[[Iterable[str], int | None], Vocabulary]] = {
    "char": _char,
    "byte": _byte,
    "sentencepiece": _pieces,
}


def build_vocabulary(kind: str, texts: Iterable[str], size: int | None) -> Vocabulary:
    """The vocabulary of a kind for these texts; `size` counts the pieces of sentencepiece."""
    if kind not in VOCABULARIES:
        known = ", ".join(VOCABULARIES)
        raise InvalidOption(f"--vocabulary is {kind!r}; it must be one of {known}.")
    return VOCABULARIES[kind](texts, size)


def _refuse_size(size: int | None, kind: str) -> None:
    if size is not None:
        raise InvalidOption(
            f"--vocab-size is {size}, but only --vocabulary sentencepiece has a size to choose; "
            f"the {kind} vocabulary has the size it needs."
        )


def _at_most(texts: Iterable[str], num_characters: int) -> Iterator[str]:
    for text in texts:
        if num_characters <= 0:
            return
        yield text[:num_characters]
        num_characters -= len(text)
