"""How tokens spell characters: links an automaton over characters to a vocabulary.

Legend: N prefixes of a character, Y symbols, K classes of characters, V vocabulary, L symbols of
the longest token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm_model.constraints.character_sets import NUM_CODE_POINTS, Partition
from charlm_model.constraints.dfa import MAX_ENTRIES, AutomatonTooLarge

Ints = NDArray[np.int64]
Int32s = NDArray[np.int32]

NOWHERE = -1
FAR = 1 << 29  # stands for an infinite distance; twice as much still fits 32 bits
_NUM_BYTES = 256


@dataclass(frozen=True, slots=True)
class Spelling:
    """Tokens as sequences of symbols, and symbols as parts of characters.

    After prefix n, symbol y leads to prefix `next_NY[n, y]`; a value of N or more completes a
    character of class `next_NY[n, y] - N`. The last symbol pads short tokens and changes nothing.
    """

    symbols_VL: Ints
    next_NY: Int32s
    rest_NK: Int32s  # fewest symbols that complete a character of each class

    @property
    def num_places(self) -> int:
        return len(self.next_NY)


def spelling_of(token_bytes: Sequence[bytes], classes: Partition) -> Spelling:
    """Symbols are bytes where every byte is a token, else characters."""
    singles = {token for token in token_bytes if len(token) == 1}
    if len(singles) == _NUM_BYTES:
        return _by_bytes(token_bytes, classes)
    return _by_characters([token.decode() for token in token_bytes], classes)


def _by_characters(tokens: Sequence[str], classes: Partition) -> Spelling:
    """A symbol is a token; the end of text, which has no characters, is padding alone."""
    num_tokens = len(tokens)
    symbols_V1 = np.arange(num_tokens)[:, None]
    next_1Y = np.zeros((1, num_tokens + 1), dtype=np.int32)
    rest_1K = np.full((1, classes.num_classes), FAR, dtype=np.int32)
    for symbol, token in enumerate(tokens):
        if len(token) == 1:
            number = classes.class_of(ord(token))
            next_1Y[0, symbol] = 1 + number
            rest_1K[0, number] = 1
    return Spelling(symbols_V1, next_1Y, rest_1K)


def _by_bytes(token_bytes: Sequence[bytes], classes: Partition) -> Spelling:
    """A symbol is a byte; prefixes are the first bytes of characters in UTF-8."""
    length = max(map(len, token_bytes))
    symbols_VL = np.full((len(token_bytes), length), _NUM_BYTES)
    for token_id, token in enumerate(token_bytes):
        symbols_VL[token_id, : len(token)] = list(token)
    places = _Prefixes(classes)
    return Spelling(symbols_VL, places.next_NY(), places.rest_NK())


class _Prefixes:
    """The prefixes of UTF-8 characters; those with the same continuations are merged."""

    def __init__(self, classes: Partition) -> None:
        self._classes = classes
        self._rows: list[tuple[int, ...]] = [()]  # prefix 0 is empty: between characters
        self._number_of: dict[tuple[int, ...], int] = {}
        row = [NOWHERE] * _NUM_BYTES
        for byte in range(0x80):
            row[byte] = self._leaf(byte)
        for first, last, num_bytes in ((0xC2, 0xDF, 2), (0xE0, 0xEF, 3), (0xF0, 0xF4, 4)):
            mask = 0x7F >> num_bytes
            for byte in range(first, last + 1):
                row[byte] = self._place((byte & mask) << 6 * (num_bytes - 1), num_bytes - 1)
        self._rows[0] = tuple(row)

    def next_NY(self) -> Int32s:
        num_places = len(self._rows)
        rows = np.array(self._rows, dtype=np.int32)
        is_leaf = rows < NOWHERE
        rows[is_leaf] = num_places + _LEAF - rows[is_leaf]
        filling_N1 = np.arange(num_places, dtype=np.int32)[:, None]
        return np.concatenate([rows, filling_N1], axis=1)

    def rest_NK(self) -> Int32s:
        next_NY = self.next_NY()
        num_places = len(next_NY)
        if num_places * self._classes.num_classes > MAX_ENTRIES:
            raise AutomatonTooLarge("entries (beginnings times kinds of characters)", MAX_ENTRIES)
        rest_NK = np.full((num_places, self._classes.num_classes), FAR, dtype=np.int32)
        # Longer prefixes have lower numbers, except for the empty one, which is 0.
        for place in [*range(1, num_places), 0]:
            for target in set(next_NY[place, :_NUM_BYTES].tolist()) - {NOWHERE}:
                if target >= num_places:
                    rest_NK[place, target - num_places] = 1
                else:
                    rest_NK[place] = np.minimum(rest_NK[place], rest_NK[target] + 1)
        capped_NK: Int32s = np.minimum(rest_NK, FAR)
        return capped_NK

    def _leaf(self, code_point: int) -> int:
        """A class as a negative number, until the number of prefixes is known."""
        return _LEAF - self._classes.class_of(code_point)

    def _place(self, first: int, num_missing: int) -> int:
        """The prefix of the code points from `first` on that lacks `num_missing` bytes."""
        width = 1 << 6 * (num_missing - 1)
        last = first + 64 * width - 1
        lowest = _LOWEST[num_missing] if first < _LOWEST[num_missing] else 0
        if lowest or last >= NUM_CODE_POINTS or not self._classes.is_uniform(first, last):
            starts = range(first, last + 1, width)
            row = tuple(self._after(start, num_missing, lowest) for start in starts)
        else:
            row = (self._after(first, num_missing, 0),) * 64
        key = (*[NOWHERE] * 0x80, *row, *[NOWHERE] * 0x40)
        if key not in self._number_of:
            self._number_of[key] = len(self._rows)
            self._rows.append(key)
        return self._number_of[key]

    def _after(self, start: int, num_missing: int, lowest: int) -> int:
        """The result of one more byte; overlong encodings are invalid."""
        if start < lowest or start >= NUM_CODE_POINTS:
            return NOWHERE
        return self._leaf(start) if num_missing == 1 else self._place(start, num_missing - 1)


_LEAF = NOWHERE - 1
# The lowest code point after the first byte, by the number of missing bytes.
_LOWEST = {1: 0x80, 2: 0x800, 3: 0x10000}
