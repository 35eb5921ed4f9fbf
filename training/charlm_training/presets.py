"""Sizes and settings per family, chosen from what the budget and the text allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# How often a parameter should see a token. Measured on 1 MB of plays with LSTMs of 128 to 512
# and budgets of 10 to 180 seconds: fewer underfits the time, more underuses the model.
TOKENS_PER_PARAMETER = 6.0
# A text of N tokens feeds no more than this many parameters per token before it is memorized.
PARAMETERS_PER_TRAIN_TOKEN = 3.0


@dataclass(frozen=True, slots=True)
class Rung:
    """One size of a family."""

    hidden_size: int
    num_layers: int = 1
    num_heads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What works for a family over its whole ladder of sizes, smallest first."""

    ladder: tuple[Rung, ...]
    learning_rate: float
    batch_size: int = 16
    window_length: int = 64
    muon_rate: float = 5.0
    tokens_per_parameter: float = 6.0
    clip_norm: float = 1.0
    weight_decay: float = 0.01
    embedding_size: int = 64
    context_length: int = 64


def _widths(*hidden_sizes: int) -> tuple[Rung, ...]:
    return tuple(Rung(hidden_size) for hidden_size in hidden_sizes)


RECIPES: dict[str, Recipe] = {
    "rnn": Recipe(ladder=_widths(32, 64, 128, 192, 256, 384, 512, 768), learning_rate=2e-3),
    "gru": Recipe(ladder=_widths(32, 64, 128, 192, 256, 384, 512, 768), learning_rate=4e-3),
    "lstm": Recipe(ladder=_widths(32, 64, 128, 192, 256, 384, 512, 768), learning_rate=6e-3),
    "transformer": Recipe(
        ladder=(
            Rung(32, 1, 2), Rung(64, 2, 2), Rung(96, 3, 3), Rung(128, 4, 4),
            Rung(192, 4, 6), Rung(256, 6, 8), Rung(384, 6, 6),
        ),
        learning_rate=4e-3,
        batch_size=8,
        window_length=128,
        weight_decay=0.1,
        context_length=128,
    ),
}  # fmt: skip


def dropout_for(epochs: float) -> float:
    """More passes over the same text need more noise against learning it by heart."""
    for most_epochs, dropout in ((1.5, 0.0), (3.0, 0.05), (8.0, 0.1), (16.0, 0.2)):
        if epochs <= most_epochs:
            return dropout
    return 0.3


def choose_rung(
    ladder: tuple[Rung, ...],
    *,
    num_parameters: Callable[[Rung], int],
    affordable_tokens: Callable[[Rung], float],
    train_tokens: int,
) -> Rung:
    """The largest size that the budget can feed and the text can fill; else the smallest.

    Bisection, because asking what is affordable costs a probe: larger is never cheaper.
    """

    def is_fitting(rung: Rung) -> bool:
        size = num_parameters(rung)
        if size > PARAMETERS_PER_TRAIN_TOKEN * train_tokens:
            return False
        return affordable_tokens(rung) >= TOKENS_PER_PARAMETER * size

    low, high = 0, len(ladder)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_fitting(ladder[middle]) else (low, middle)
    return ladder[low]
