"""The scheduler of one model: admits jobs and owns the thread on which the engine runs.

Loop and thread meet in two places: a queue into the engine, under one lock, and the events of a
tick on their way out.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from charlm_server.calls.call import Call
from charlm_server.calls.histogram import Histogram
from charlm_server.engine.engine import Engine
from charlm_server.engine.fair_sharing import FairShares
from charlm_server.engine.job import Event, Job
from charlm_server.errors.base import EngineDied, EngineFailed
from charlm_server.errors.overload import Draining
from charlm_server.scheduling.admission import AdmissionQueue, QueueLimits
from charlm_server.scheduling.delivery import Delivery
from charlm_server.scheduling.fair_queue import FairQueue, QueuedJob
from charlm_server.scheduling.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0
MAX_SLEEP_S = 3600.0  # a wait that never ends would overflow the platform's clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How busy one model is."""

    num_running: int
    capacity: int  # rows that can run together
    num_waiting: int
    num_waiting_tokens: int
    num_parked: int
    num_sampled_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineProgress:
    """What one engine has done, in ticks and in decode steps."""

    num_steps: int
    seconds_per_step: float  # of processor time, as measured lately
    num_ticks: int
    ticks_s: float  # of all ticks together
    silent_s: float  # see Heartbeat


class Scheduler:
    """Admits jobs on the event loop and runs them on a thread of its own."""

    def __init__(self, engine: Engine, limits: QueueLimits) -> None:
        self._engine = engine
        self.heartbeat = Heartbeat(engine.clock)
        self.queue_waits = Histogram()  # of jobs that began, in seconds
        self._changed = threading.Condition()
        self._admission = AdmissionQueue(limits)  # under the lock, as all that follows
        self._must_stop_all = False
        self._is_closing = False
        self._is_draining = False  # of the loop alone, as what follows
        self._open: set[Job] = set()
        self._delivery = Delivery()
        self._num_ticks, self._ticks_s = 0, 0.0  # of the thread alone
        self._nothing_open = asyncio.Event()
        self._nothing_open.set()

    # --- lifecycle, on the loop ---

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._delivery.start()
        self._thread = threading.Thread(target=self._run, name="charlm-engine", daemon=True)
        self._thread.start()

    async def drain(self, grace_s: float) -> None:
        """Refuse new jobs; after `grace_s` end open ones with the text they have."""
        self._is_draining = True
        if not await self._finished_within(grace_s):
            with self._changed:
                self._must_stop_all = True
                self._changed.notify()
            await self._finished_within(STOP_TIMEOUT_S)

    async def close(self) -> None:
        """End the thread; open jobs are dropped."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, STOP_TIMEOUT_S)  # it may be stuck

    async def nothing_open(self) -> None:
        """Return once no job is open."""
        await self._nothing_open.wait()

    async def _finished_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.nothing_open(), seconds)
        return self._nothing_open.is_set()

    # --- calls, on the loop ---

    def refuse_if_full(self) -> None:
        """Raise QueueFull if any call would be refused, before its request is converted.

        In an overload there are many such calls, and they should cost little.
        """
        with self._changed:
            self._admission.refuse_if_full(self._engine.clock())

    @asynccontextmanager
    async def run(self, job: Job, call: Call | None = None) -> AsyncIterator[None]:
        """Admit the job or raise; leaving the block in any way frees its rows.

        It counts for its call's fair share; without a call it is a job of the server's own.
        """
        if call is not None:
            job.caller = call.turns_of
        queue = self._admission.generations if job.num_rows else self._admission.scorings
        waiting = QueuedJob(job)
        self._admit(waiting, queue)
        self._open.add(job)
        self._nothing_open.clear()
        try:
            yield
        finally:
            job.is_cancelled = True
            self._open.remove(job)
            if not self._open:
                self._nothing_open.set()
            with self._changed:
                queue.settle(waiting)
                self._changed.notify()
            self._note(job, call)

    def now(self) -> float:
        """The clock by which deadlines are given."""
        return self._engine.clock()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs: it ends only when closed, or by an error in the server."""
        return self._thread.is_alive()

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last tick failed, and no open job shows whether the next one would."""
        return self.is_alive and not self._open and self.heartbeat.silent_s > 0

    @property
    def num_open(self) -> int:
        """Open jobs, waiting or running."""
        return len(self._open)

    @property
    def load(self) -> Load:
        """Any thread may ask."""
        with self._changed:
            num_waiting, num_waiting_tokens = len(self._admission), self._admission.num_tokens
        return Load(
            num_running=self._engine.num_running,
            capacity=self._engine.capacity,
            num_waiting=num_waiting,
            num_waiting_tokens=num_waiting_tokens,
            num_parked=self._engine.num_parked,
            num_sampled_tokens=self._engine.num_sampled_tokens,
        )

    @property
    def progress(self) -> EngineProgress:
        """Any thread may ask."""
        return EngineProgress(
            num_steps=self._engine.num_steps,
            seconds_per_step=self._engine.seconds_per_step,
            num_ticks=self._num_ticks,
            ticks_s=self._ticks_s,
            silent_s=self.heartbeat.silent_s,
        )

    def wake(self) -> None:
        """Let the thread check what has changed."""
        with self._changed:
            self._changed.notify()

    def _note(self, job: Job, call: Call | None) -> None:
        """Record the job's times."""
        if job.started_at:
            self.queue_waits.add(job.started_at - job.submitted_at)
        if call is not None:
            call.left(job)

    def _admit(self, waiting: QueuedJob, queue: FairQueue) -> None:
        if self._is_draining:
            raise Draining
        if not self.is_alive:
            raise EngineDied
        waiting.job.submitted_at = self._engine.clock()
        work_s = waiting.job.num_prompt_tokens * self._engine.seconds_per_prompt_token
        with self._changed:
            self._admission.admit(waiting, queue, work_s=work_s)
            self._changed.notify()

    def _give_up(self) -> None:
        """The thread has died: end the open jobs."""
        for job in self._open:
            job.output.close(EngineDied())

    # --- the thread ---

    def _run(self) -> None:
        try:
            self._engine.enter_thread()
            while self._has_something_to_do():
                began_at = self._engine.clock()
                events = self._tick()
                self._num_ticks += 1
                self._ticks_s += self._engine.clock() - began_at
                if events:
                    self._delivery.hand_over(events)
        except BaseException:
            logger.critical("the engine's thread has died", exc_info=True)
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self._loop.call_soon_threadsafe(self._give_up)

    def _has_something_to_do(self) -> bool:
        """Sleep until there is work or a deadline; False when closing."""
        with self._changed:
            seconds = min(self._engine.next_deadline - self._engine.clock(), MAX_SLEEP_S)
            self._changed.wait_for(self._is_due, max(seconds, 0.0))
            return not self._is_closing

    def _is_due(self) -> bool:
        return bool(
            self._is_closing or self._must_stop_all or self._admission or self._engine.has_work
        )

    def _tick(self) -> list[Event]:
        # An exception is a fault of the server: open jobs end with an error, the thread goes on.
        self.heartbeat.begin()
        events: list[Event] = []
        num_pieces = self._engine.num_pieces
        try:
            with self._changed:
                events += self._let_in()
                must_stop, self._must_stop_all = self._must_stop_all, False
            if must_stop:
                events += self._engine.stop_all()
            else:
                events += self._engine.tick(kept_s=self._delivery.kept_s)
        except Exception:
            logger.exception("the engine failed; all of its calls end with an error")
            return events + self._engine.fail_all(EngineFailed())
        if self._engine.num_pieces > num_pieces or not (self._admission or self._engine.has_work):
            self.heartbeat.beat()
        return events

    def _let_in(self) -> list[Event]:
        """Begin jobs for which there is room, by turns; drop those that are too late."""
        engine, generations, scorings = (
            self._engine,
            self._admission.generations,
            self._admission.scorings,
        )
        events = []
        for queue in (generations, scorings):
            events += self._turn_away(queue)
            for waiting in queue.take(self._has_ended):
                self._engine.begin(waiting.job)
        self._begin(generations, lambda: engine.row_shares)
        self._begin(scorings, lambda: engine.scoring_shares)
        return events

    def _begin(self, queue: FairQueue, shares: Callable[[], FairShares]) -> None:
        """Begin all jobs for which there is room, by turns."""
        while queue:
            queue.shares = shares()
            caller = next(filter(queue.shares.has_room_for, queue.callers), None)
            if caller is None:
                return
            self._engine.begin(self._admission.next(queue, caller, self._engine.clock()))

    def _has_ended(self, job: Job) -> bool:
        """Whether its time limit has passed: the engine answers it at once, without a row."""
        return job.time_limit <= self._engine.clock()

    def _turn_away(self, queue: FairQueue) -> list[Event]:
        """Drop jobs that are cancelled or late, or all when the engine must stop."""
        now = self._engine.clock()
        events = []
        for waiting in queue.take(lambda job: self._must_leave(job, now)):
            job, late = waiting.job, self._admission.too_late(waiting.job, queue, now)
            error = Draining() if self._must_stop_all else late
            events.append(Event(job.output, closes=True, error=error))
        return events

    def _must_leave(self, job: Job, now: float) -> bool:
        return self._must_stop_all or job.is_over or job.deadline <= now
