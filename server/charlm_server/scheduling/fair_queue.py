"""Who waits, and who is next: callers take turns, weighed by the tokens that they were given.

The caller with the least on its account is next, of those for whom there is a place; what was
begun goes on its account. Whoever comes back begins where the others are, so that nobody saves
turns up.
Source: start-time fair queueing, Goyal, Vin & Cheng (1996); tokens as its measure, Sheng et al.
(2024), "Fairness in Serving Large Language Models".
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import chain

from charlm_server.engine.fair_sharing import FairShares
from charlm_server.engine.job import Job


@dataclass(slots=True, eq=False)
class QueuedJob:
    """An admitted job that has not begun."""

    job: Job
    num_charged: int = 0  # tokens on the caller's account
    num_tokens: int = field(init=False)  # of the job, which may take long to count

    def __post_init__(self) -> None:
        self.num_tokens = self.job.num_tokens

    @property
    def caller(self) -> str:
        return self.job.caller


class FairQueue:
    """The jobs that wait for one kind of place; those of one caller keep their order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[QueuedJob]] = {}  # by caller; none is empty
        self._num = 0
        self.num_tokens = 0  # of all who wait
        self._accounts: dict[str, float] = {}  # tokens, by caller
        self.shares = FairShares(Counter(), 0)  # of the places, as last seen
        self._level = 0.0  # the account of whoever was begun last, before that was added

    def __len__(self) -> int:
        return self._num  # any thread may ask

    def __iter__(self) -> Iterator[QueuedJob]:
        return chain.from_iterable(self._queues.values())

    def of(self, caller: str) -> Collection[QueuedJob]:
        """Those of one caller."""
        return self._queues.get(caller, ())

    def num_ahead(self, caller: str) -> int:
        """How many will begin before the caller's next job, where all jobs are alike."""
        num_own = len(self.of(caller))
        others = (len(queue) for name, queue in self._queues.items() if name != caller)
        return num_own + sum(min(num, num_own + 1) for num in others)

    def is_next(self, caller: str) -> bool:
        """Whether a job of it would begin at once, as far as is known: there is a place for it."""
        return caller not in self._queues and self.shares.has_room_for(caller)

    def add(self, waiting: QueuedJob) -> None:
        caller = waiting.caller
        if caller not in self._queues:
            self._queues[caller] = deque()
            self._accounts[caller] = max(self._accounts.get(caller, 0.0), self._level)
        self._queues[caller].append(waiting)
        self._num += 1
        self.num_tokens += waiting.num_tokens

    @property
    def callers(self) -> list[str]:
        """Those who wait, whose turn it is first."""
        return sorted(self._queues, key=self._accounts.__getitem__)

    def pop(self, caller: str) -> QueuedJob:
        """Whoever is next of that caller. There is someone."""
        waiting = self._queues[caller].popleft()
        self._num -= 1
        self.num_tokens -= waiting.num_tokens
        self._level = self._accounts[caller]
        waiting.num_charged = waiting.num_tokens
        self._accounts[caller] += waiting.num_charged
        self._forget_the_idle()
        return waiting

    def take(self, condition: Callable[[Job], bool]) -> list[QueuedJob]:
        """Remove all whom the condition holds for, out of turn; their callers lose no turn."""
        taken = [waiting for waiting in self if condition(waiting.job)]
        for waiting in taken:
            self._queues[waiting.caller].remove(waiting)
        self._num -= len(taken)
        self.num_tokens -= sum(waiting.num_tokens for waiting in taken)
        self._forget_the_idle()
        return taken

    def settle(self, waiting: QueuedJob) -> None:
        """A job has left: what it did not use of its charge goes back to its caller."""
        if waiting.caller in self._accounts:
            unused = max(waiting.num_charged - waiting.job.num_used_tokens, 0)
            account = self._accounts[waiting.caller] - unused
            self._accounts[waiting.caller] = max(account, self._level)

    def _forget_the_idle(self) -> None:
        """Accounts matter only while somebody waits."""
        self._queues = {name: queue for name, queue in self._queues.items() if queue}
        if not self._queues:
            self._accounts, self._level = {}, 0.0
