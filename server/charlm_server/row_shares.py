"""Whose rows they are: where none is free, who holds most lends one to who has fewer.

A caller lends only to one that has fewer rows even afterwards, so rows do not go to and fro, and
callers that want more than there is end up with numbers of rows that differ by one at most.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RowShares:
    """Rows by caller: those that decode, and those wanted by all who were begun."""

    seated: Counter[str]
    wanted: Counter[str]
    capacity: int

    def has_room_for(self, caller: str) -> bool:
        """Whether one more of its jobs may begin: a row is free for it, or will be lent."""
        if self.wanted.total() < self.capacity:
            return True
        richest = max(self.seated, key=self.seated.__getitem__, default=caller)
        others = (name for name in self.wanted if name != richest)
        num_on_the_way = sum(self.wanted[name] - self.seated[name] for name in others)
        return _may_borrow(self.seated[richest] - num_on_the_way, self.wanted[caller])


@dataclass(slots=True)
class Deal:
    """Who of those that are ready gets a row, by place, and how many rows a caller gives up."""

    newcomers: list[int] = field(default_factory=list)
    lent: Counter[str] = field(default_factory=Counter)


def deal(seated: Counter[str], ready: Sequence[str], num_free: int) -> Deal:
    """Rows for the callers in `ready`, in their order where they have equally many."""
    dealt, rows = Deal(), seated.copy()
    waiting: dict[str, deque[int]] = {}
    for place, caller in enumerate(ready):
        waiting.setdefault(caller, deque()).append(place)
    while waiting:
        caller = min(waiting, key=lambda name: (rows[name], waiting[name][0]))
        if len(dealt.newcomers) >= num_free:
            lenders = [name for name in seated if seated[name] > dealt.lent[name]]
            richest = max(lenders, key=rows.__getitem__, default=caller)
            if not _may_borrow(rows[richest], rows[caller]):
                break
            rows[richest] -= 1
            dealt.lent[richest] += 1
        rows[caller] += 1
        dealt.newcomers.append(waiting[caller].popleft())
        if not waiting[caller]:
            del waiting[caller]
    return dealt


def _may_borrow(num_of_lender: int, num_of_borrower: int) -> bool:
    return num_of_lender - num_of_borrower >= 2
