"""Whose the places are: where none is free, who holds most gives one to who has fewer.

A caller gives only to one with at least two fewer, so places do not go to and fro, and
callers that want more than there is end up with numbers of places that differ by one at most.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


class FairShares:
    """Places that callers hold or are on the way to, of so many that there are."""

    def __init__(self, wanted: Counter[str], capacity: int) -> None:
        self._wanted, self._capacity = wanted, capacity
        self._is_free = wanted.total() < capacity
        self._by_own: dict[int, bool] = {}  # callers with equally many have the same others

    def has_room_for(self, caller: str) -> bool:
        """Whether one more job of it may begin: a place is free, or it has less than its share."""
        own = self._wanted[caller]
        if own not in self._by_own:
            others = (num for name, num in self._wanted.items() if name != caller)
            self._by_own[own] = self._is_free or own < fair_share(others, self._capacity)
        return self._by_own[own]


def fair_share(others: Iterable[int], capacity: int) -> int:
    """Places for one more caller beside those that want so many: none with fewer goes without.

    Max-min fairness: small wishes are met whole, and the rest is divided equally.
    """
    left, wishes = capacity, sorted(others)
    for num_met, wish in enumerate(wishes):
        num_callers = len(wishes) - num_met + 1
        if wish * num_callers > left:
            return left // num_callers
        left -= wish
    return left


@dataclass(slots=True)
class RowAssignment:
    """How many of a caller's that wait get a place, and how many places a caller gives up."""

    granted: Counter[str] = field(default_factory=Counter)
    lent: Counter[str] = field(default_factory=Counter)


def assign_rows(held: Counter[str], waiting: Counter[str], num_free: int) -> RowAssignment:
    """Places for those who wait, one after the other to whoever has fewest."""
    assigned = RowAssignment()
    has, left = held.copy(), {caller: num for caller, num in waiting.items() if num}
    while left:
        caller = min(left, key=has.__getitem__)
        if assigned.granted.total() >= num_free:
            lenders = [name for name in held if held[name] > assigned.lent[name]]
            richest = max(lenders, key=has.__getitem__, default=caller)
            if has[richest] - has[caller] < 2:
                break
            has[richest] -= 1
            assigned.lent[richest] += 1
        has[caller] += 1
        assigned.granted[caller] += 1
        left[caller] -= 1
        if not left[caller]:
            del left[caller]
    return assigned


def lenders(
    lent: Counter[str],
    holders: Sequence[T],
    *,
    caller_of: Callable[[T], str],
    num_left: Callable[[T], int],
) -> list[T]:
    """Of each caller's so many as it lends, those furthest from their ends."""
    leaving: list[T] = []
    for caller, num in lent.items():
        own = [holder for holder in holders if caller_of(holder) == caller]
        leaving += sorted(own, key=num_left, reverse=True)[:num]
    return leaving
