"""Sets of Unicode characters as ranges, and the partition of all characters by several sets.

Legend: K classes (characters that are in the same sets), R ranges.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

NUM_CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)  # code points that UTF-8 cannot encode

Ranges = tuple[tuple[int, int], ...]  # first and last code point, ascending and apart
Ints = NDArray[np.int64]


@lru_cache(maxsize=256)
def ranges_of_class(source: str, flags: int) -> Ranges:
    r"""The characters that a one-character pattern (`[a-z]`, `\w`, `.`) matches.

    Python's `re` is tried on every character, so a class has exactly its meaning there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # about nested sets, a possible future syntax
        runs = re.compile(f"(?:{source})+", flags)
    return tuple((match.start(), match.end() - 1) for match in runs.finditer(_every_character()))


def ranges_of_characters(characters: str) -> Ranges:
    """The set of these characters, with neighbors joined to ranges."""
    ranges: list[tuple[int, int]] = []
    for code_point in sorted(set(map(ord, characters))):
        if ranges and ranges[-1][1] == code_point - 1:
            ranges[-1] = ranges[-1][0], code_point
        else:
            ranges.append((code_point, code_point))
    return tuple(ranges)


@lru_cache(maxsize=1)
def _every_character() -> str:
    return "".join(map(chr, range(NUM_CODE_POINTS)))


@dataclass(frozen=True, slots=True)
class Partition:
    """A class for every code point; each set is a union of classes. Class 0 is in no set."""

    starts_R: Ints  # ascending; range r ends before the next start
    classes_R: Ints
    classes_of_set: list[list[int]]

    @property
    def num_classes(self) -> int:
        return int(self.classes_R.max()) + 1

    def class_of(self, code_point: int) -> int:
        return int(self.classes_R[self._range_of(code_point)])

    def is_uniform(self, first: int, last: int) -> bool:
        """Whether all code points from first to last are in one range, and so in one class."""
        return self._range_of(first) == self._range_of(last)

    def _range_of(self, code_point: int) -> int:
        return int(np.searchsorted(self.starts_R, code_point, "right")) - 1


def partition(sets: Sequence[Ranges]) -> Partition:
    """The coarsest partition in which each set is a union of classes, found by refinement."""
    outside = ((SURROGATES.start, SURROGATES.stop - 1),)
    bounds = {0} | {b for ranges in (*sets, outside) for r in ranges for b in (r[0], r[1] + 1)}
    starts_R = np.array(sorted(bounds - {NUM_CODE_POINTS}), dtype=np.int64)
    is_surrogate_R = (starts_R >= SURROGATES.start) & (starts_R < SURROGATES.stop)
    members = [_members(ranges, starts_R, is_surrogate_R) for ranges in sets]
    classes_R = np.zeros(len(starts_R), dtype=np.int64)
    sizes = [0]  # of each class; class 0 is split even if a set contains all of it
    for ranges_M in members:
        old, inverse, counts = np.unique(
            classes_R[ranges_M], return_inverse=True, return_counts=True
        )
        new = old.copy()
        for position, (number, count) in enumerate(zip(old.tolist(), counts.tolist(), strict=True)):
            if count != sizes[number]:
                sizes[number] -= count
                new[position] = len(sizes)
                sizes.append(count)
        classes_R[ranges_M] = new[inverse.reshape(-1)]
    return Partition(starts_R, classes_R, [np.unique(classes_R[m]).tolist() for m in members])


def _members(ranges: Ranges, starts_R: Ints, is_surrogate_R: NDArray[np.bool_]) -> Ints:
    """The indices of the ranges that a set consists of."""
    edges = np.searchsorted(starts_R, [(first, last + 1) for first, last in ranges])
    parts = [np.arange(low, high) for low, high in edges.reshape(-1, 2)]
    members = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    chosen: Ints = members[~is_surrogate_R[members]]
    return chosen
