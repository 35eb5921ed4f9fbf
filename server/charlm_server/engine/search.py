"""Searches: work with many steps of its own, which runs in pieces between other work.

Each is a generator that yields after every piece. Two run at a time, which bounds their rows.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from charlm_model.inference.batched_steps import Stepper
from charlm_model.snapshot import Snapshot
from charlm_model.state import State
from charlm_server.engine.job import Job, JobEngine, Outbox
from charlm_server.engine.output_buffer import OutputPart
from charlm_server.engine.readers import PrefixReader
from charlm_server.errors.base import CharlmError

NUM_TOGETHER = 2
# Of all rows of one search; requests that need more are refused.
MAX_STATE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class PrefixState:
    """The state after what was read, one row, and the logits of the next token."""

    stepper: Stepper
    state: State
    logits_1V: Tensor


@dataclass(kw_only=True, eq=False)
class SearchJob(Job):
    """A search of what follows a context; the generator returns the result."""

    context_ids: list[int]  # begins with the start context unless there is a snapshot
    num_steps: int  # an upper bound, by which the queue is bounded
    search: Callable[[PrefixState], Generator[None, None, Any]]
    snapshot: Snapshot | None = None  # read before the context

    def begin(self, engine: JobEngine) -> None:
        search = partial(engine.search, self)
        engine.prefill.add(PrefixReader(self, self.context_ids, self.snapshot, search), self.caller)

    @property
    def num_tokens(self) -> int:
        return len(self.context_ids) + self.num_steps

    @property
    def num_rows(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found."""

    value: Any

    @property
    def num_bytes(self) -> int:
        return 0  # it is one part, whatever its size


class SearchQueue:
    """All searches in order of arrival; the first two take turns."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._works: deque[tuple[Job, Iterator[None]]] = deque()

    @property
    def num(self) -> int:
        return len(self._works)

    def add(self, job: Job, work: Iterator[None]) -> None:
        self._works.append((job, work))

    def ask(self, job: SearchJob, start: PrefixState) -> None:
        self.add(job, self._answering(job, start))

    def work_on(self, must_stop: Callable[[], bool]) -> None:
        """Run a piece of each of the first two, again and again until it must stop."""
        self._works = deque(each for each in self._works if not each[0].is_over)
        while self._works:
            for _ in range(min(NUM_TOGETHER, len(self._works))):
                self._take_turn()
            if must_stop():
                return

    def _take_turn(self) -> None:
        job, work = self._works.popleft()
        try:
            next(work)
        except StopIteration:
            return
        except CharlmError as error:
            self._outbox.close(job, error)
            return
        # Behind the other one that runs, before those that wait.
        self._works.insert(min(NUM_TOGETHER - 1, len(self._works)), (job, work))

    def _answering(self, job: SearchJob, start: PrefixState) -> Iterator[None]:
        part: OutputPart = SearchResult((yield from job.search(start)))
        self._outbox.put(job, part, closes=True)
