"""Saves the whole state of a run at intervals, and loads it after a crash."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Protocol

from charlm_training.errors import InvalidOption
from charlm_training.monitoring.events import Listener, Noticed, Resumed
from charlm_training.planning.options import TrainOptions
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.run.run_state_store import RunStateStore
from charlm_training.run.stopwatch import Stopwatch
from charlm_training.state_tree import Record

# Saving takes at most 1/50 of the time, also on a slow disk.
LEAST_INTERVAL_PER_SAVE = 50
# Options that may differ when a run is resumed: the result does not depend on them.
FREE = ("out", "force", "command", "resume", "save_interval_s")


class Stateful(Protocol):
    """Has a state that can be saved: nested plain values and tensors."""

    def state_dict(self) -> Record: ...


@dataclass(slots=True)
class Checkpointer:
    """Decides when to save. A state is saved with its owner, and loaded by the same owner only.

    Of several processes the first one saves, but all have to make their part of the state.
    """

    store: RunStateStore
    owner: Record
    interval_s: float
    stopwatch: Stopwatch
    listener: Listener
    group: ProcessGroup = SINGLE_PROCESS
    _next_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._next_at = self.stopwatch.clock() + self.interval_s

    def save_if_due(self, trainer: Stateful, *, at_once: bool) -> None:
        """Save if the interval is over, or at once. On a full disk, a notice; training goes on."""
        began = self.stopwatch.clock()
        if not self.group.broadcast_number(began >= self._next_at or at_once):
            return
        run = {"fit": trainer.state_dict(), "elapsed_s": self.stopwatch.elapsed_s()}
        record = {"owner": self.owner, "run": run}
        if self.group.is_first:
            self._save(record, began)

    def _save(self, record: Record, began: float) -> None:
        try:
            self.store.save(record)
        except OSError as error:
            self.listener(
                Noticed(
                    text=f"The training state could not be saved ({error.strerror}); what was "
                    "saved before is untouched, and training goes on."
                )
            )
        now = self.stopwatch.clock()
        pause_s = (now - began) * LEAST_INTERVAL_PER_SAVE if self.interval_s else 0.0
        self._next_at = now + max(self.interval_s, pause_s)

    def load(self) -> Record | None:
        """The trainer's state in the run that was killed; None if it had saved nothing yet.

        The stopwatch continues from the seconds of that run.

        Raises InvalidOption when it was another run, RunStateDamaged when it cannot be read.
        """
        run = self.group.run_on_first(self._load)
        if run is None:
            return None
        self.stopwatch.carry_over(run["elapsed_s"])
        state: Record = run["fit"]
        return state

    def _load(self) -> Record | None:
        loaded = self.store.load()
        if loaded is None:
            self.listener(
                Noticed(text="There is no saved state to resume; training starts at the beginning.")
            )
            self.listener(Resumed(step=0))
            return None
        value, notices = loaded
        for notice in notices:
            self.listener(Noticed(text=notice))
        self._check(value["owner"])
        run: Record = value["run"]
        return run

    def _check(self, theirs: Record) -> None:
        for name, ours in self.owner.items():
            if theirs.get(name) != ours:
                raise InvalidOption(
                    f"--resume needs the same {name.replace('_', ' ')} as before: it was "
                    f"{theirs.get(name)!r} and is now {ours!r}. Give it as before, or train "
                    "without --resume."
                )


def owner_of(options: TrainOptions, sha256: str) -> Record:
    """The options and the digest of the text, without nesting: what the result depends on."""
    chosen = {k: v for k, v in asdict(options).items() if k not in (*FREE, "corpus")}
    nested = {**chosen.pop("data"), **chosen.pop("size")}
    return {**chosen, **nested, "text (SHA-256)": sha256}
