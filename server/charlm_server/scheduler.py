"""Decides who is admitted and when, and owns the thread on which the engine runs.

The loop and the thread meet in two places: a queue going in, under one lock, and a single
`call_soon_threadsafe` a tick coming out, with everything that happened to all calls.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from charlm_server.engine import Engine
from charlm_server.errors import DeadlineTooShort, Draining, EngineFailed, QueueFull
from charlm_server.inquiry import InquiryJob
from charlm_server.job import Event, Job
from charlm_server.pulse import Pulse
from charlm_server.scoring import NextJob, ScoringJob
from charlm_server.sequence import GenerationJob
from charlm_server.wait import WaitEstimate

logger = logging.getLogger(__name__)

MIN_RETRY_S, MAX_RETRY_S = 0.05, 30.0
STOP_TIMEOUT_S = 5.0
MAX_SLEEP_S = 3600.0  # a wait that never ends would overflow the platform's clock


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    """Bounds of the calls that wait for a place; one alone is never refused for its tokens."""

    max_requests: int = 256
    max_tokens: int = 16_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How busy one model is."""

    num_running: int
    num_waiting: int
    num_parked: int
    num_sampled_tokens: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    job: Job
    begin: Callable[[], None]  # on the engine's thread


class Scheduler:
    """One model's door: admission on the loop, work on a thread of its own."""

    def __init__(self, engine: Engine, limits: QueueLimits) -> None:
        self._engine, self._limits = engine, limits
        self.pulse = Pulse(engine.clock)
        self._changed = threading.Condition()
        self._generations: deque[_Waiting] = deque()  # under the lock, as all that follows
        self._scorings: deque[_Waiting] = deque()
        self._wait = WaitEstimate()
        self._must_stop_all = False
        self._is_closing = False
        self._is_draining = False  # of the loop alone, as what follows
        self._num_open = 0
        self._num_delivered = 0
        self._num_handed_over = 0  # of the thread alone
        self._nothing_open = asyncio.Event()
        self._nothing_open.set()

    # --- lifecycle, on the loop ---

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="charlm-engine", daemon=True)
        self._thread.start()

    async def drain(self, grace_s: float) -> None:
        """Admit no one, let those inside finish; after `grace_s` end them with what they have."""
        self._is_draining = True
        if not await self._finished_within(grace_s):
            with self._changed:
                self._must_stop_all = True
                self._changed.notify()
            await self._finished_within(STOP_TIMEOUT_S)

    async def close(self) -> None:
        """End the thread; what is left is dropped."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    async def nothing_open(self) -> None:
        """Return once no call is inside."""
        await self._nothing_open.wait()

    async def _finished_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.nothing_open(), seconds)
        return self._nothing_open.is_set()

    # --- calls, on the loop ---

    def generate(self, job: GenerationJob) -> AbstractAsyncContextManager[None]:
        """Admit the job or raise; leaving the block, by any road, frees its rows."""
        begin, engine = self._engine.begin_generation, self._engine
        waiting = _Waiting(job, lambda: begin(job))
        reading_s = len(job.prompt_ids) * engine.seconds_per_prompt_token
        queue = self._generations if job.num_rows else self._scorings
        return self._running(waiting, queue, reading_s)

    def score(self, job: ScoringJob) -> AbstractAsyncContextManager[None]:
        """As `generate`, for scores."""
        begin = self._engine.begin_scoring
        return self._running(_Waiting(job, lambda: begin(job)), self._scorings, 0.0)

    def look_ahead(self, job: NextJob) -> AbstractAsyncContextManager[None]:
        """As `generate`, for the distribution of what comes next."""
        begin = self._engine.begin_next
        return self._running(_Waiting(job, lambda: begin(job)), self._scorings, 0.0)

    def inquire(self, job: InquiryJob) -> AbstractAsyncContextManager[None]:
        """As `generate`, for searches."""
        begin = self._engine.begin_inquiry
        return self._running(_Waiting(job, lambda: begin(job)), self._scorings, 0.0)

    def now(self) -> float:
        """The clock by which deadlines are given."""
        return self._engine.clock()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs: it ends only when closed."""
        return self._thread.is_alive()

    @property
    def num_open(self) -> int:
        """Calls inside, waiting or running."""
        return self._num_open

    @property
    def load(self) -> Load:
        """Numbers of this moment, without stopping the thread for them."""
        return Load(
            num_running=self._engine.num_running,
            num_waiting=len(self._generations) + len(self._scorings),
            num_parked=self._engine.num_parked,
            num_sampled_tokens=self._engine.num_sampled_tokens,
        )

    def wake(self) -> None:
        """Something changed that the thread should look at."""
        with self._changed:
            self._changed.notify()

    @asynccontextmanager
    async def _running(
        self, waiting: _Waiting, queue: deque[_Waiting], work_s: float
    ) -> AsyncIterator[None]:
        self._admit(waiting, queue, work_s)
        self._num_open += 1
        self._nothing_open.clear()
        try:
            yield
        finally:
            waiting.job.is_cancelled = True
            self._num_open -= 1
            if self._num_open == 0:
                self._nothing_open.set()
            self.wake()

    def _admit(self, waiting: _Waiting, queue: deque[_Waiting], work_s: float) -> None:
        if self._is_draining:
            raise Draining
        now = self._engine.clock()
        waiting.job.submitted_at = now
        with self._changed:
            self._refuse_if_full(waiting.job, now)
            needed_s = work_s + (self._wait.seconds_for(len(queue), now) if queue else 0.0)
            if now + needed_s >= waiting.job.deadline:
                raise DeadlineTooShort(waiting.job.deadline - now, needed_s)
            queue.append(waiting)
            self._changed.notify()

    def _refuse_if_full(self, job: Job, now: float) -> None:
        queued = [waiting.job for waiting in (*self._generations, *self._scorings)]
        retry_after_s = self._wait.seconds_for(0, now)
        retry_after_s = min(max(retry_after_s, MIN_RETRY_S), MAX_RETRY_S)
        if len(queued) >= self._limits.max_requests:
            raise QueueFull("requests", self._limits.max_requests, retry_after_s)
        num_tokens = sum(each.num_tokens for each in queued)
        if queued and num_tokens + job.num_tokens > self._limits.max_tokens:
            raise QueueFull("tokens", self._limits.max_tokens, retry_after_s)

    def _deliver(self, events: list[Event]) -> None:
        self._num_delivered += 1
        for event in events:
            event.deliver()

    # --- the thread ---

    def _run(self) -> None:
        self._engine.enter_thread()
        while self._has_something_to_do():
            with self.pulse:
                events = self._tick()
            if events:
                self._num_handed_over += 1
                self._loop.call_soon_threadsafe(self._deliver, events)

    def _has_something_to_do(self) -> bool:
        """Sleep until there is work or a deadline; False when closing."""
        with self._changed:
            seconds = min(self._engine.next_deadline - self._engine.clock(), MAX_SLEEP_S)
            self._changed.wait_for(self._is_due, max(seconds, 0.0))
            return not self._is_closing

    def _is_due(self) -> bool:
        return bool(
            self._is_closing
            or self._must_stop_all
            or self._generations
            or self._scorings
            or self._engine.has_work
        )

    def _tick(self) -> list[Event]:
        # What goes wrong in here is a fault of ours: those inside are told, the thread lives on.
        try:
            with self._changed:
                events = self._let_in()
                must_stop, self._must_stop_all = self._must_stop_all, False
            if must_stop:
                return events + self._engine.stop_all()
            is_behind = self._num_handed_over > self._num_delivered
            return events + self._engine.tick(loop_is_behind=is_behind)
        except Exception:
            logger.exception("the engine failed; all of its calls are told so")
            return self._engine.fail_all(EngineFailed())

    def _let_in(self) -> list[Event]:
        """Begin whoever has a place, in the order of arrival; turn away who came too late."""
        events = self._turn_away(self._generations) + self._turn_away(self._scorings)
        while self._generations and (self._engine.has_room or self._has_ended(self._generations)):
            self._begin(self._generations)
        scorings = self._scorings
        while scorings and (self._engine.has_scoring_room or self._has_ended(scorings)):
            self._begin(self._scorings)
        return events

    def _has_ended(self, queue: deque[_Waiting]) -> bool:
        """Whether the first one's own time limit has passed: the engine answers it at once."""
        return queue[0].job.time_limit <= self._engine.clock()

    def _begin(self, queue: deque[_Waiting]) -> None:
        queue.popleft().begin()
        if queue:
            self._wait.record(self._engine.clock())

    def _turn_away(self, queue: deque[_Waiting]) -> list[Event]:
        """Drop the cancelled, the expired and, when all is to stop, everyone."""
        now = self._engine.clock()
        events = []
        for waiting in [each for each in queue if self._must_leave(each.job, now)]:
            queue.remove(waiting)
            job = waiting.job
            late = DeadlineTooShort(job.deadline - now, self._wait.seconds_for(len(queue), now))
            error = Draining() if self._must_stop_all else late
            events.append(Event(job.output, closes=True, error=error))
        return events

    def _must_leave(self, job: Job, now: float) -> bool:
        return self._must_stop_all or job.is_over or job.deadline <= now
