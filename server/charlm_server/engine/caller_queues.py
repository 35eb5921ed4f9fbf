"""Those who wait for places, each caller's in a line of its own."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Generic, TypeVar

T = TypeVar("T")


class CallerQueues(Generic[T]):
    """Lines by caller, none of them empty; a caller that was served goes behind the others.

    Whoever gave up waiting is passed over, at the latest when its turn comes.
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
        """Before all others of that caller."""
        self._queues.setdefault(caller, deque()).appendleft(waiting)

    def lengths(self) -> Counter[str]:
        """By caller; each line begins with someone who still waits."""
        for caller, queue in list(self._queues.items()):
            while queue and self._has_given_up(queue[0]):
                queue.popleft()
            if not queue:
                del self._queues[caller]
        return Counter({caller: len(queue) for caller, queue in self._queues.items()})

    def take(self, numbers: Counter[str]) -> list[T]:
        """So many of each caller, from the front of its line; caller by caller."""
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
