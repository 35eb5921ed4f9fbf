"""Those who wait for places, each caller's in a line of its own."""

from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")


class Lines(Generic[T]):
    """Lines by caller, in the order in which they were begun; none is empty."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._lines.values())

    @property
    def lengths(self) -> Counter[str]:
        return Counter({caller: len(line) for caller, line in self._lines.items()})

    def add(self, caller: str, waiting: T) -> None:
        self._lines.setdefault(caller, deque()).append(waiting)

    def add_first(self, caller: str, waiting: T) -> None:
        """Before all others of that caller."""
        self._lines.setdefault(caller, deque()).appendleft(waiting)

    def take(self, numbers: Counter[str]) -> list[T]:
        """So many of each caller, from the front of its line; caller by caller."""
        taken = [self._lines[caller].popleft() for caller in numbers.elements()]
        self._lines = {caller: line for caller, line in self._lines.items() if line}
        return taken
