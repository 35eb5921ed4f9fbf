"""Whose the places are: where none is free, who holds most gives one to who has fewer.

A caller gives only to one that has fewer even afterwards, so places do not go to and fro, and
callers that want more than there is end up with numbers of places that differ by one at most.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shares:
    """Places that callers hold or are on the way to, of so many that there are."""

    wanted: Counter[str]
    capacity: int

    def has_room_for(self, caller: str) -> bool:
        """Whether one more job of it may begin: a place is free, or others have more than it."""
        if self.wanted.total() < self.capacity:
            return True
        own, most = self.wanted[caller], max(self.wanted.values(), default=0)
        if most - own < 2:
            return False
        others = (num for name, num in self.wanted.items() if name != caller)
        return own < fair_share(others, self.capacity)


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
class Deal:
    """Who of those that are ready gets a place, by position, and how many a caller gives up."""

    newcomers: list[int] = field(default_factory=list)
    lent: Counter[str] = field(default_factory=Counter)


def deal(seated: Counter[str], ready: Sequence[str], num_free: int) -> Deal:
    """Places for the callers in `ready`, in their order where they have equally many."""
    dealt, held = Deal(), seated.copy()
    waiting: dict[str, deque[int]] = {}
    for position, caller in enumerate(ready):
        waiting.setdefault(caller, deque()).append(position)
    while waiting:
        caller = min(waiting, key=lambda name: (held[name], waiting[name][0]))
        if len(dealt.newcomers) >= num_free:
            lenders = [name for name in seated if seated[name] > dealt.lent[name]]
            richest = max(lenders, key=held.__getitem__, default=caller)
            if held[richest] - held[caller] < 2:
                break
            held[richest] -= 1
            dealt.lent[richest] += 1
        held[caller] += 1
        dealt.newcomers.append(waiting[caller].popleft())
        if not waiting[caller]:
            del waiting[caller]
    return dealt
