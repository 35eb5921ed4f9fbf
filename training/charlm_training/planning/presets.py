"""Sizes and settings per family, chosen from what the budget and the text allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# How often a parameter should see a token. Measured on 1 MB of plays with LSTMs of 128 to 512
# and budgets of 10 to 180 seconds: fewer underfits the time, more underuses the model.
TOKENS_PER_PARAMETER = 4.0
# With more parameters per token of text than this, a model memorizes the text.
PARAMETERS_PER_TRAIN_TOKEN = 3.0


@dataclass(frozen=True, slots=True)
class ModelSize:
    """One size of a family."""

    hidden_size: int
    num_layers: int = 1
    num_heads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Settings of a family that work at every size.

    Rates were found at sizes of 96 to 384 over 300 to 1,500 steps, dropout for LSTMs of 192 to 512
    and Transformers of 64 to 128, over 3 to 17 epochs of 1 MB and 10 to 150 of 100 KB
    (docs/log/training-recipes.md). `muon_rate` is relative to the learning rate, which is AdamW's.
    A Transformer drops numbers in every layer and bears less.
    """

    sizes: tuple[ModelSize, ...]
    learning_rate: float
    batch_size: int = 32
    window_length: int = 64
    muon_rate: float = 2.0
    fresh_share: float = 0.05
    most_dropout: float = 0.65
    half_risk: float = 7.0
    """The risk of overfitting (see `dropout_for`) that gets half of `most_dropout`."""
    clip_norm: float = 1.0
    weight_decay: float = 0.01
    embedding_size: int = 64
    context_length: int = 64
    kernel_size: int = 1
    most_pair_rows: int = 0


# With a large vocabulary, pairs of tokens share vectors, so that the table stays small.
PAIR_ROWS = 16_384
RECURRENT_SIZES = tuple(ModelSize(width) for width in (32, 64, 128, 192, 256, 384, 512, 768))
RECIPES: dict[str, Recipe] = {
    "rnn": Recipe(
        sizes=RECURRENT_SIZES, learning_rate=8e-3, muon_rate=2.5, most_pair_rows=PAIR_ROWS
    ),
    "gru": Recipe(sizes=RECURRENT_SIZES, learning_rate=8e-3, most_pair_rows=PAIR_ROWS),
    "lstm": Recipe(
        sizes=RECURRENT_SIZES, learning_rate=8e-3, muon_rate=3.0, most_pair_rows=PAIR_ROWS
    ),
    "transformer": Recipe(
        sizes=(
            ModelSize(32, 2, 1), ModelSize(64, 3, 2), ModelSize(96, 4, 2),
            ModelSize(128, 4, 2), ModelSize(128, 6, 2), ModelSize(128, 8, 2),
            ModelSize(192, 5, 3), ModelSize(256, 6, 4), ModelSize(384, 6, 6),
        ),
        learning_rate=12e-3,
        weight_decay=0.1,
        most_dropout=0.3,
        half_risk=50.0,
        context_length=48,
        kernel_size=4,
    ),
}  # fmt: skip


def dropout_for(recipe: Recipe, *, epochs: float, parameters_per_token: float) -> float:
    """More dropout for more epochs and more parameters per token, up to a limit."""
    risk = max(epochs - 1, 0) * parameters_per_token
    return round(recipe.most_dropout * risk / (risk + recipe.half_risk), 2)


def choose_size(
    sizes: tuple[ModelSize, ...],
    *,
    num_parameters: Callable[[ModelSize], int],
    affordable_tokens: Callable[[ModelSize], float],
    train_tokens: int,
) -> ModelSize:
    """The largest size with enough budget and text; otherwise the smallest.

    Bisection, because every call of `affordable_tokens` costs a probe.
    """

    def is_fitting(size: ModelSize) -> bool:
        parameters = num_parameters(size)
        if parameters > PARAMETERS_PER_TRAIN_TOKEN * train_tokens:
            return False
        return affordable_tokens(size) >= TOKENS_PER_PARAMETER * parameters

    low, high = 0, len(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_fitting(sizes[middle]) else (low, middle)
    return sizes[low]
