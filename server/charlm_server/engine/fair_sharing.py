"""Fair shares of rows: if no row is free, the caller with the most lends one.

It lends only to a caller with at least two fewer, so rows do not go back and forth, and callers
that want more than there is end up with numbers of rows that differ by at most one.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


class FairShares:
    """Rows that callers have or will have soon, out of `capacity`."""

    def __init__(self, wanted: Counter[str], capacity: int) -> None:
        self._wanted, self._capacity = wanted, capacity
        self._is_free = wanted.total() < capacity
        self._by_own: dict[int, bool] = {}  # callers with equally many have the same others

    def has_room_for(self, caller: str) -> bool:
        """Whether one more of its jobs may begin: a row is free, or it has less than its share."""
        own = self._wanted[caller]
        if own not in self._by_own:
            others = (num for name, num in self._wanted.items() if name != caller)
            self._by_own[own] = self._is_free or own < fair_share(others, self._capacity)
        return self._by_own[own]


def fair_share(others: Iterable[int], capacity: int) -> int:
    """Rows for one more caller beside others that want so many.

    Max-min fairness: small demands are met in full, and the rest is divided equally.
    """
    left, demands = capacity, sorted(others)
    for num_met, demand in enumerate(demands):
        num_callers = len(demands) - num_met + 1
        if demand * num_callers > left:
            return left // num_callers
        left -= demand
    return left


@dataclass(slots=True)
class RowAssignment:
    """Rows granted to each caller, and rows that each caller lends."""

    granted: Counter[str] = field(default_factory=Counter)
    lent: Counter[str] = field(default_factory=Counter)


def assign_rows(held: Counter[str], waiting: Counter[str], num_free: int) -> RowAssignment:
    """Assign rows one by one to the waiting caller that has the fewest."""
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
    """Which rows are lent: of each caller, those furthest from their end."""
    leaving: list[T] = []
    for caller, num in lent.items():
        own = [holder for holder in holders if caller_of(holder) == caller]
        leaving += sorted(own, key=num_left, reverse=True)[:num]
    return leaving
