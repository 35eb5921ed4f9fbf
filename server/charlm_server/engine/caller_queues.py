"""Per-caller queues of what waits for a row."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")


class CallerQueues(Generic[T]):
    """Queues by caller, none of them empty; a caller that was served goes behind the others.

    Items for which `has_given_up` holds are dropped when they reach the front.
    """

    def __init__(self, has_given_up: Callable[[T], bool]) -> None:
        self._queues: dict[str, deque[T]] = {}
        self._has_given_up = has_given_up

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._queues.values())

    def add(self, caller: str, waiting: T) -> None:
        self._queues.setdefault(caller, deque()).append(waiting)

    def add_first(self, caller: str, waiting: T) -> None:
        """In front of the caller's other items."""
        self._queues.setdefault(caller, deque()).appendleft(waiting)

    def lengths(self) -> Counter[str]:
        """By caller; the first item of each queue still waits."""
        for caller, queue in list(self._queues.items()):
            while queue and self._has_given_up(queue[0]):
                queue.popleft()
            if not queue:
                del self._queues[caller]
        return Counter({caller: len(queue) for caller, queue in self._queues.items()})

    def take(self, numbers: Counter[str]) -> list[T]:
        """Remove and return so many items of each caller, first in first out."""
        return [each for caller, num in numbers.items() for each in self._take(caller, num)]

    def _take(self, caller: str, num: int) -> Iterator[T]:
        queue = self._queues.pop(caller)
        while queue and num:
            waiting = queue.popleft()
            if not self._has_given_up(waiting):
                num -= 1
                yield waiting
        if queue:
            self._queues[caller] = queue
