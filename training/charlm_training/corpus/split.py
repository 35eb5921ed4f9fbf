"""Splits a corpus: the last part of it is for validation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from charlm_training.errors import CorpusTooSmall, InvalidOption

# With fewer, one part of the split has nothing to predict.
MIN_CHARACTERS = 10
MIN_VALIDATION_CHARACTERS = 2
LARGEST_FRACTION = 0.5
TOO_FEW_LINES = (
    "The corpus has too few lines: --unit line needs at least one line to train on and one to "
    "validate on. Use --unit stream for a text that is not a list of lines."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The first `boundary` characters train, the rest validate."""

    boundary: int
    num_characters: int

    def train(self, chunks: Iterable[str]) -> Iterator[str]:
        return between(chunks, 0, self.boundary)

    def validation(self, chunks: Iterable[str]) -> Iterator[str]:
        return between(chunks, self.boundary, self.num_characters)


def split_characters(num_characters: int, validation_fraction: float) -> Split:
    """Cut a corpus of a known length; 0.1 validates on the last tenth."""
    _check(num_characters, validation_fraction)
    boundary = int(num_characters * (1 - validation_fraction) + 1e-9)
    boundary = min(boundary, num_characters - MIN_VALIDATION_CHARACTERS)
    return Split(boundary=boundary, num_characters=num_characters)


def split_lines(chunks: Iterable[str], split: Split) -> Split:
    """Move the cut to the end of the line it falls into, or, in the last line, to its start."""
    before, seen = 0, 0
    for chunk in chunks:
        inside = max(split.boundary - 1 - seen, 0)
        after = seen + chunk.find("\n", inside) + 1
        # A cut at the very end would leave no line to validate on.
        if seen < after < split.num_characters:
            return Split(boundary=after, num_characters=split.num_characters)
        last = chunk.rfind("\n", 0, inside)
        before = seen + last + 1 if last >= 0 else before
        seen += len(chunk)
    if before:
        return Split(boundary=before, num_characters=split.num_characters)
    raise CorpusTooSmall(TOO_FEW_LINES)


def between(chunks: Iterable[str], start: int, stop: int) -> Iterator[str]:
    """The characters from `start` up to `stop`, still in pieces."""
    seen = 0
    for chunk in chunks:
        piece = chunk[max(start - seen, 0) : max(stop - seen, 0)]
        if piece:
            yield piece
        seen += len(chunk)
        if seen >= stop:
            return


def whole_lines(chunks: Iterable[str]) -> Iterator[list[str]]:
    """The non-empty lines, a list for every chunk; none is torn at the edge of a chunk."""
    held = ""
    for chunk in chunks:
        *lines, held = (held + chunk).split("\n")
        yield [line for line in lines if line]
    if held:
        yield [held]


def _check(num_characters: int, validation_fraction: float) -> None:
    if not 0 < validation_fraction <= LARGEST_FRACTION:
        raise InvalidOption(
            f"--validation-fraction is {validation_fraction}; it must be above 0 and at most "
            f"{LARGEST_FRACTION}."
        )
    if num_characters < MIN_CHARACTERS:
        raise CorpusTooSmall(
            f"The corpus has {num_characters} character(s), and training needs at least "
            f"{MIN_CHARACTERS}, for both parts of the split. Use a longer text."
        )
