"""The options of `charlm train`, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from charlm_training.budget import (
    Budget,
    Clock,
    EpochBudget,
    StepBudget,
    TimeBudget,
    parse_duration,
)
from charlm_training.corpus.dataset import DataOptions
from charlm_training.device import CHOICES, is_choice
from charlm_training.errors import InvalidOption
from charlm_training.optim.lr_scheduler import check_rate

DEFAULT_BUDGET = "3m"
FAMILIES = ("ngram", "rnn", "gru", "lstm", "transformer")


def check_family(family: str, flag: str = "--family") -> None:
    """Raises InvalidOption before anything is read."""
    if family not in FAMILIES:
        raise InvalidOption(f"{flag} is {family!r}; it must be one of {', '.join(FAMILIES)}.")


def check_seed(seed: int) -> None:
    """Raises InvalidOption for what random generators do not take."""
    if not 0 <= seed < 1 << 63:
        raise InvalidOption(f"--seed is {seed}; it must be from 0 to 2**63 - 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeOptions:
    """Sizes given as flags; None leaves the choice to the planner."""

    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    embedding_size: int | None = None
    context_length: int | None = None
    dropout: float | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    window_length: int | None = None
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "window_length"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 65_536:
                raise InvalidOption(f"{flag_of(name)} is {value}; it must be from 1 to 65536.")
        if self.learning_rate is not None:
            check_rate(self.learning_rate)


def flag_of(name: str) -> str:
    """The flag that sets an option."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """One run. Of `budget`, `steps` and `epochs` at most one is given."""

    corpus: str
    out: Path
    family: str = "lstm"
    device: str = "cpu"
    budget: str | None = None
    steps: int | None = None
    epochs: float | None = None
    seed: int = 0
    data: DataOptions = field(default_factory=DataOptions)
    size: SizeOptions = field(default_factory=SizeOptions)
    force: bool = False
    command: str = ""
    resume: bool = False
    save_interval_s: float = 30.0

    def __post_init__(self) -> None:
        check_family(self.family)
        given = [name for name in ("budget", "steps", "epochs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InvalidOption(f"--{given[0]} and --{given[1]} exclude each other; give one.")
        if self.steps is not None and not 1 <= self.steps <= 1_000_000_000:
            raise InvalidOption(f"--steps is {self.steps}; it must be from 1 to 1000000000.")
        if self.epochs is not None and not 0 < self.epochs <= 1_000_000:
            raise InvalidOption(f"--epochs is {self.epochs}; it must be above 0, up to 1000000.")
        if not is_choice(self.device):
            raise InvalidOption(f"--device is {self.device!r}; it must be {CHOICES}.")
        check_seed(self.seed)
        if not 0 <= self.save_interval_s <= 86_400:
            raise InvalidOption(
                f"--save-interval is {self.save_interval_s:g}; it must be from 0 to 86400 seconds."
            )
        if self.budget is not None:
            parse_duration(self.budget)

    @property
    def is_timed(self) -> bool:
        """Whether a wall clock ends the run."""
        return self.steps is None and self.epochs is None

    def start_budget(self, clock: Clock) -> Budget:
        """The budget that was asked for; a wall clock starts to run now."""
        if self.steps is not None:
            return StepBudget(self.steps)
        if self.epochs is not None:
            return EpochBudget(self.epochs)
        return TimeBudget(parse_duration(self.budget or DEFAULT_BUDGET), clock)
