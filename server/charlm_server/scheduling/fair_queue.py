"""A fair queue: callers take turns, weighted by the tokens of their jobs.

The caller with the lowest account is next, of those whose jobs have room; the tokens of a job that
begins are added to the account. A caller that returns starts at the level of the others, so that
unused turns are not saved.
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
    """Jobs that wait to begin; those of one caller keep their order."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[QueuedJob]] = {}  # by caller; none is empty
        self._num = 0
        self.num_tokens = 0  # of all waiting jobs
        self._accounts: dict[str, float] = {}  # tokens, by caller
        self.shares = FairShares(Counter(), 0)  # of the rows, as last seen
        self._level = 0.0  # the account of the caller whose job began last, before it was charged

    def __len__(self) -> int:
        return self._num  # any thread may ask

    def __iter__(self) -> Iterator[QueuedJob]:
        return chain.from_iterable(self._queues.values())

    def of(self, caller: str) -> Collection[QueuedJob]:
        """The waiting jobs of one caller."""
        return self._queues.get(caller, ())

    def num_ahead(self, caller: str) -> int:
        """How many jobs begin before the caller's next one, if all are of one size."""
        num_own = len(self.of(caller))
        others = (len(queue) for name, queue in self._queues.items() if name != caller)
        return num_own + sum(min(num, num_own + 1) for num in others)

    def is_next(self, caller: str) -> bool:
        """Whether a job of the caller would begin at once, as far as is known."""
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
        """Callers with waiting jobs, in the order of their turns."""
        return sorted(self._queues, key=self._accounts.__getitem__)

    def pop(self, caller: str) -> QueuedJob:
        """Remove and charge the caller's next job, which exists."""
        waiting = self._queues[caller].popleft()
        self._num -= 1
        self.num_tokens -= waiting.num_tokens
        self._level = self._accounts[caller]
        waiting.num_charged = waiting.num_tokens
        self._accounts[caller] += waiting.num_charged
        self._forget_the_idle()
        return waiting

    def take(self, condition: Callable[[Job], bool]) -> list[QueuedJob]:
        """Remove all jobs that meet the condition; their callers are not charged."""
        taken = [waiting for waiting in self if condition(waiting.job)]
        for waiting in taken:
            self._queues[waiting.caller].remove(waiting)
        self._num -= len(taken)
        self.num_tokens -= sum(waiting.num_tokens for waiting in taken)
        self._forget_the_idle()
        return taken

    def settle(self, waiting: QueuedJob) -> None:
        """A job has left: refund what it was charged and did not use."""
        if waiting.caller in self._accounts:
            unused = max(waiting.num_charged - waiting.job.num_used_tokens, 0)
            account = self._accounts[waiting.caller] - unused
            self._accounts[waiting.caller] = max(account, self._level)

    def _forget_the_idle(self) -> None:
        """Accounts matter only while jobs wait."""
        self._queues = {name: queue for name, queue in self._queues.items() if queue}
        if not self._queues:
            self._accounts, self._level = {}, 0.0
