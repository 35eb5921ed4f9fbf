"""Admission: a bounded queue for each model, which refuses early what cannot begin in time."""

from collections import deque
from dataclasses import dataclass

from charlm_server.config.limits import Limits
from charlm_server.engine.job import Job
from charlm_server.errors.overload import DeadlineTooShort, QueueFull, ShareTaken
from charlm_server.scheduling.fair_queue import FairQueue, QueuedJob

MIN_RETRY_S, MAX_RETRY_S = 0.05, 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    """Bounds of one model's queue. A single call is never refused for its tokens."""

    max_requests: int
    max_tokens: int
    per_caller: "QueueLimits | None" = None  # the bounds of each caller

    @classmethod
    def of(cls, limits: Limits) -> "QueueLimits":
        """The queue's part of a server's limits, which hold the defaults."""
        num, num_tokens = limits.max_queued_requests, limits.max_queued_tokens
        share = cls(max_requests=limits.share_of(num), max_tokens=limits.share_of(num_tokens))
        return cls(max_requests=num, max_tokens=num_tokens, per_caller=share)


class AdmissionQueue:
    """Two fair queues and their common bounds. Used under the scheduler's lock."""

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self.generations, self.scorings = FairQueue(), FairQueue()
        self._wait = WaitEstimate()

    def __len__(self) -> int:
        return len(self.generations) + len(self.scorings)

    @property
    def num_tokens(self) -> int:
        """An upper bound of the queued work."""
        return self.generations.num_tokens + self.scorings.num_tokens

    def refuse_if_full(self, now: float) -> None:
        """Raises QueueFull if any call would be refused."""
        self._refuse_one_more(len(self), self._limits, QueueFull, now)

    def admit(self, waiting: QueuedJob, queue: FairQueue, *, work_s: float) -> None:
        """Queue a job that needs `work_s` seconds of work before its first token.

        Raises QueueFull, or DeadlineTooShort if it would begin too late.
        """
        job = waiting.job
        self._refuse_excess(waiting)
        wait_s = self._wait.seconds_for(queue.num_ahead(waiting.caller), job.submitted_at)
        is_waiting = len(queue) and not queue.is_next(waiting.caller)
        needed_s = work_s + (wait_s if is_waiting else 0.0)
        if job.submitted_at + needed_s >= job.deadline:
            raise DeadlineTooShort(job.deadline - job.submitted_at, needed_s)
        queue.add(waiting)

    def next(self, queue: FairQueue, caller: str, now: float) -> Job:
        """Take that caller's next job out of the queue, to begin it now."""
        job = queue.pop(caller).job
        if queue:
            self._wait.record(now)
        return job

    def too_late(self, job: Job, queue: FairQueue, now: float) -> DeadlineTooShort:
        """The error of a job that did not begin in time."""
        return DeadlineTooShort(job.deadline - now, self._wait.seconds_for(len(queue), now))

    def _refuse_excess(self, queued: QueuedJob) -> None:
        """Raise a refusal if there are too many jobs, or too many tokens."""
        self._refuse(queued, len(self), self.num_tokens, self._limits, QueueFull)
        if queued.caller and self._limits.per_caller is not None:
            own = [*self.generations.of(queued.caller), *self.scorings.of(queued.caller)]
            num_tokens = sum(each.num_tokens for each in own)
            self._refuse(queued, len(own), num_tokens, self._limits.per_caller, ShareTaken)

    def _refuse(
        self,
        queued: QueuedJob,
        num_waiting: int,
        num_tokens: int,
        limits: QueueLimits,
        refusal: type[QueueFull],
    ) -> None:
        now = queued.job.submitted_at
        self._refuse_one_more(num_waiting, limits, refusal, now)
        if num_waiting and num_tokens + queued.num_tokens > limits.max_tokens:
            raise refusal("tokens", limits.max_tokens, self._retry_after_s(now))

    def _refuse_one_more(
        self, num_waiting: int, limits: QueueLimits, refusal: type[QueueFull], now: float
    ) -> None:
        if num_waiting >= limits.max_requests:
            raise refusal("requests", limits.max_requests, self._retry_after_s(now))

    def _retry_after_s(self, now: float) -> float:
        return min(max(self._wait.seconds_for(0, now), MIN_RETRY_S), MAX_RETRY_S)


NUM_REMEMBERED = 32


class WaitEstimate:
    """Estimates queue waits: jobs ahead, divided by the rate at which jobs began (Little's law)."""

    def __init__(self) -> None:
        self._begun_at: deque[float] = deque(maxlen=NUM_REMEMBERED)

    def record(self, now: float) -> None:
        """A job began while others waited."""
        self._begun_at.append(now)

    def seconds_for(self, num_ahead: int, now: float) -> float:
        """Until a job behind `num_ahead` others begins; 0 before anything is known."""
        if len(self._begun_at) < 2:
            return 0.0
        return (num_ahead + 1) * (now - self._begun_at[0]) / (len(self._begun_at) - 1)
