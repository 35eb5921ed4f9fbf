"""The smallest automaton of all substrings of a text: exact matching, linear in both texts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


class SuffixAutomaton:
    """A state stands for substrings that end at the same places; its link for a shorter suffix.

    Source: Blumer et al. (1985), "The smallest automaton recognizing the subwords of a text".
    """

    def __init__(self, text: Sequence[Hashable]) -> None:
        self._next: list[dict[Hashable, int]] = [{}]
        self._link, self._length = [-1], [0]
        self._prefixes: list[int] = []
        last = 0
        for symbol in text:
            last = self._append(last, symbol)
            self._prefixes.append(last)

    def longest_suffixes(self, other: Iterable[Hashable]) -> list[int]:
        """For each place in the text: how long is what ends there and occurs in `other`?"""
        matched = self._matched(other)
        order = sorted(range(len(self._length)), key=self._length.__getitem__)
        # Whatever occurs takes its suffixes with it, up to the longest of each state.
        for state in reversed(order[1:]):
            link = self._link[state]
            if matched[state]:
                matched[link] = self._length[link]
        # A state of which nothing occurs has only what its shorter suffixes have.
        for state in order[1:]:
            matched[state] = matched[state] or matched[self._link[state]]
        return [matched[state] for state in self._prefixes]

    def _append(self, last: int, symbol: Hashable) -> int:
        state = self._state(self._length[last] + 1, {}, 0)
        while last >= 0 and symbol not in self._next[last]:
            self._next[last][symbol] = state
            last = self._link[last]
        if last >= 0:
            self._link[state] = self._split(last, symbol)
        return state

    def _split(self, before: int, symbol: Hashable) -> int:
        """The state of what follows `before` alone, apart from longer strings of its own."""
        target = self._next[before][symbol]
        if self._length[target] == self._length[before] + 1:
            return target
        copy = self._state(self._length[before] + 1, dict(self._next[target]), self._link[target])
        while before >= 0 and self._next[before].get(symbol) == target:
            self._next[before][symbol] = copy
            before = self._link[before]
        self._link[target] = copy
        return copy

    def _state(self, length: int, following: dict[Hashable, int], link: int) -> int:
        self._next.append(following)
        self._link.append(link)
        self._length.append(length)
        return len(self._length) - 1

    def _matched(self, other: Iterable[Hashable]) -> list[int]:
        """For each state: the longest of its strings that ends somewhere in `other`."""
        following, links, lengths = self._next, self._link, self._length
        matched = [0] * len(lengths)
        state = length = 0
        for symbol in other:
            while state and symbol not in following[state]:
                state = links[state]
                length = lengths[state]
            if symbol in following[state]:
                state = following[state][symbol]
                length += 1
            if length > matched[state]:
                matched[state] = length
        return matched
