"""Saves the whole state of a run now and then, and finds it again after a crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from charlm_training.budget import Clock
from charlm_training.errors import InvalidOption
from charlm_training.monitoring.events import Listener, Noticed, Resumed
from charlm_training.planning.options import TrainOptions
from charlm_training.process_group import ALONE, Crew
from charlm_training.run.run_state_store import StateStore
from charlm_training.state_tree import Record

# Saving takes at most one part in so many of the time, however slow the disk and large the model.
LEAST_INTERVAL_PER_SAVE = 50
# What may differ between a run and its resumption: nothing that the result depends on.
FREE = ("out", "force", "command", "resume", "save_interval_s")


@dataclass(slots=True)
class Keeper:
    """Decides when to save. What it saves says what it belongs to, and is refused elsewhere.

    Of several processes the first one saves, but all have to make their part of the record.
    """

    store: StateStore
    owner: Record
    interval_s: float
    clock: Clock
    listener: Listener
    crew: Crew = ALONE
    _next_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._next_at = self.clock() + self.interval_s

    def keep(self, make_record: Callable[[], Record], at_once: bool) -> None:
        """Save if that is due, or at once. A full disk is said, and training goes on."""
        began = self.clock()
        if not self.crew.number_from_first(began >= self._next_at or at_once):
            return
        record = {"owner": self.owner, "run": make_record()}
        if self.crew.is_first:
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
        now = self.clock()
        pause_s = (now - began) * LEAST_INTERVAL_PER_SAVE if self.interval_s else 0.0
        self._next_at = now + max(self.interval_s, pause_s)

    def load(self) -> Record | None:
        """The run that was killed, None if it had saved nothing yet.

        Raises InvalidOption when it was another run, StateDamaged when it cannot be read.
        """
        return self.crew.from_first(self._load)

    def _load(self) -> Record | None:
        loaded = self.store.load()
        if loaded is None:
            self.listener(
                Noticed(text="Nothing was saved to resume from; starts at the beginning.")
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
    """What a run depends on, flat: its options and the text's digest."""
    chosen = {k: v for k, v in asdict(options).items() if k not in (*FREE, "corpus")}
    nested = {**chosen.pop("data"), **chosen.pop("size")}
    return {**chosen, **nested, "text (SHA-256)": sha256}
