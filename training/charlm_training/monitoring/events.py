"""The events of a run. The terminal, the log and tests listen to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The plan is made; training has not started."""

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
    """Means over the steps since the last such event."""

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
    """A sample of the text that the model generates."""

    step: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Noticed:
    """A message for the user: a repair, a reduced size, a rollback."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumed:
    """The run continues from the state of an earlier process; later steps are made again."""

    step: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The run has ended and its checkpoint is saved."""

    stopped_by: str
    report: dict[str, object]


Event = Planned | Progressed | Evaluated | Sampled | Noticed | Resumed | Finished
Listener = Callable[[Event], None]
