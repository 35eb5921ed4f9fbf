"""Jobs, which are requests inside the engine, and the events of their output."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from charlm_model.state import State
from charlm_server.engine.output_buffer import OutputBuffer, OutputPart
from charlm_server.engine.readers import Reader
from charlm_server.engine.token_columns import TokenColumns

FOREVER = float("inf")


class Lane(Protocol):
    """Reads tokens together with those of other jobs."""

    def add(self, reader: Reader, caller: str) -> None: ...


class Placer(Protocol):
    """Gives sequences rows of the batch."""

    def add_read(self, sequences: Any, state: State | None, logits_1V: Tensor) -> None:
        """Sequences that go on from here, as soon as there are rows for them."""


class JobEngine(Protocol):
    """What a job asks of its engine. Sequences are `Any`: their module imports this one."""

    @property
    def outbox(self) -> "Outbox": ...

    @property
    def prefill(self) -> Lane:
        """Where is read what decoding or a search follows: readers are given the state."""
        ...

    @property
    def scoring(self) -> Lane:
        """Where is read for the logits alone: readers are given no state."""
        ...

    @property
    def placement(self) -> Placer: ...

    def search(self, job: "Job", state: State | None, logits_1V: Tensor) -> None:
        """Run a job's own search from here, in turns with other work."""

    def accept(self, sequence: Any, columns: TokenColumns) -> None:
        """Take tokens of a sequence, and put out what may be shown of them."""


@dataclass(kw_only=True, eq=False)
class Job(ABC):
    """One admitted request. Times are in seconds on the engine's clock."""

    output: OutputBuffer[Any]
    caller: str = ""  # whose fair share its work counts for
    deadline: float = FOREVER  # the call must have ended by then
    time_limit: float = FOREVER  # chosen by the client: what there is by then is the answer
    submitted_at: float = 0.0
    started_at: float = 0.0
    is_cancelled: bool = False  # written by the loop, read by the engine's thread
    is_closed: bool = False  # written and read by the engine's thread, as what follows
    is_answered: bool = False  # something was put out for it

    @abstractmethod
    def begin(self, engine: JobEngine) -> None:
        """Give the engine its readers. Runs once, on the engine's thread."""

    @property
    def num_prompt_tokens(self) -> int:
        """How many must be read before the first token of the answer; 0 if none is streamed."""
        return 0

    @property
    def ends_at(self) -> float:
        return min(self.deadline, self.time_limit)

    @property
    def is_over(self) -> bool:
        """Nothing more is to be done: the answer is complete, or the call was cancelled."""
        return self.is_closed or self.is_cancelled

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """An upper bound of its work, by which the queue is bounded."""

    @property
    def num_used_tokens(self) -> int:
        """How much of that work was done."""
        return self.num_tokens

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """How many rows of the batch it will take."""


@dataclass(frozen=True, slots=True)
class Event:
    """A part of a call's answer, its end, or both."""

    output: OutputBuffer[Any]
    part: OutputPart | None = None
    closes: bool = False
    error: Exception | None = None
    is_first: bool = False  # no earlier event of this call is on its way

    def deliver(self) -> None:
        """Runs on the loop."""
        if self.part is not None:
            self.output.add(self.part)
        if self.closes:
            self.output.close(self.error)


@dataclass(slots=True)
class Outbox:
    """The events of one tick."""

    events: list[Event] = field(default_factory=list)

    def put(self, job: Job, part: OutputPart, *, closes: bool = False) -> None:
        job.output.count(part)
        job.is_closed = closes
        self.events.append(Event(job.output, part, closes, is_first=not job.is_answered))
        job.is_answered = True

    def close(self, job: Job, error: Exception | None = None) -> None:
        job.is_closed = True
        self.events.append(Event(job.output, None, closes=True, error=error))

    def take(self) -> list[Event]:
        events, self.events = self.events, []
        return events
