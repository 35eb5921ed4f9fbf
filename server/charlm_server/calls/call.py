"""The record of one call: its method, caller, model, times and result."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from charlm_server.calls.amounts import Amounts, ModelCounters
from charlm_server.engine.job import Job

OK, CANCELLED, LATE = "OK", "CANCELLED", "DEADLINE_EXCEEDED"


class Observer(Protocol):
    """Notified of every call, on the event loop."""

    def began(self, call: "Call") -> None: ...

    def ended(self, call: "Call") -> None: ...


class Usage(Protocol):
    """Knows how many calls use a model."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class UsableModel(Protocol):
    """A loaded model, as a call sees it."""

    @property
    def name(self) -> str: ...

    @property
    def usage(self) -> Usage: ...


ModelT = TypeVar("ModelT", bound=UsableModel)


@dataclass(kw_only=True, slots=True, eq=False)
class Call:
    """Times are in seconds of the monotonic clock, which is the engines' too."""

    method: str  # of a bounded set, as "charlm.v1.GenerationService/Generate"
    request_id: str
    caller: str = ""  # its name, never its token
    address: str = ""  # where it came from, without the port
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets
    counters_of: Callable[[str], ModelCounters] | None = None  # where to count while the call runs
    count_response: Callable[[Any, list[Amounts]], None] | None = None  # None: nothing is counted
    streams_text: bool = False  # the times between its messages are recorded
    began_at: float = field(default_factory=time.monotonic)
    first_at: float = 0.0  # of the first response; 0 until then
    last_at: float = 0.0
    ended_at: float = 0.0
    submitted_at: float = 0.0  # of its first job, as are the next two
    started_at: float = 0.0
    prefilled_at: float = 0.0
    code: str = OK
    reason: str = ""  # of a refusal, stable
    model: str = ""  # the last that it used, by its own name
    trace_id: str = ""
    amounts: Amounts = field(default_factory=Amounts)
    _used: list[UsableModel] = field(default_factory=list, init=False, repr=False)
    _counters: ModelCounters | None = field(default=None, init=False)
    _totals: list[Amounts] = field(init=False)

    def __post_init__(self) -> None:
        self._totals = [self.amounts]

    @property
    def turns_of(self) -> str:
        """The caller for fair sharing: the token's name, or else the address."""
        return self.caller or self.address

    @property
    def duration_s(self) -> float:
        return self.ended_at - self.began_at

    def use(self, model: ModelT) -> ModelT:
        """Keep the model loaded until the call ends, and count the call's text as the model's."""
        if model not in self._used:
            self._used.append(model)
            model.usage.begin()
        self.model = model.name
        if self.counters_of is not None:
            self._counters = self.counters_of(model.name)
            self._totals = [self.amounts, self._counters.amounts]
        return model

    def release_models(self) -> None:
        """The call has ended: what it used may be unloaded."""
        for model in self._used:
            model.usage.end()
        self._used.clear()

    def wrote(self, response: Any) -> None:
        """Record a response. This runs for every message, so it must be cheap."""
        if self.count_response is None:
            return
        if self.streams_text:
            self._note_time(time.monotonic())
        self.count_response(response, self._totals)

    def left(self, job: Job) -> None:
        """A job of this call has left the engine."""
        if not self.submitted_at:
            self.submitted_at, self.started_at = job.submitted_at, job.started_at
            self.prefilled_at = getattr(job, "prefilled_at", 0.0)

    def _note_time(self, now: float) -> None:
        if self._counters is not None and self.first_at:
            self._counters.between_chunks.add(now - self.last_at)
        elif self._counters is not None:
            self._counters.first_character.add(now - self.began_at)
        self.first_at = self.first_at or now
        self.last_at = now
