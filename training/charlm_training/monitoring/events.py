"""What happens during a run, as values. The terminal, the log and tests all listen to these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """Sizes and sources are decided; nothing has been learned yet."""

    family: str
    num_parameters: int
    vocab_size: int
    vocabulary: str
    unit: str
    train_characters: int
    validation_characters: int
    hidden_size: int
    num_layers: int
    settings: dict[str, int | float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progressed:
    """A few steps were made; the numbers are means over those steps."""

    step: int
    epoch: float
    progress: float
    loss_nats: float
    bits_per_character: float
    learning_rate: float
    gradient_norm: float
    characters_per_s: float
    elapsed_s: float
    remaining_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A slice of the validation text was scored."""

    step: int
    progress: float
    nats_per_token: float
    bits_per_character: float
    is_best: bool
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What the model writes by now."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Noticed:
    """Something a person should know: a repair, a shrunk size, a rollback."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """The run goes on where an earlier process of it was stopped; later steps are made again."""

    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The run is over and its checkpoint is on disk."""

    stopped_by: str
    report: dict[str, object]


Event = Planned | Progressed | Evaluated | Sampled | Noticed | Resumed | Finished
Listener = Callable[[Event], None]
