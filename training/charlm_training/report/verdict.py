"""A verdict on the curves of a run: overfitted, underfitted or about right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Nats per token. Slices of validation text differ by a few hundredths from each other.
RISEN = 0.02
CLOSE, WIDE = 0.05, 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Progress from 0 to 1, and nats per token: of training as it went, and on validation text."""

    training: Sequence[tuple[float, float]]
    validation: Sequence[tuple[float, float]]


def fit_verdict(history: History) -> str:
    """One or two sentences, with the flags that may help."""
    if len(history.validation) < 2 or not history.training:
        return "The run was too short to tell whether the model is underfitted or overfitted."
    best_at, best = min(history.validation, key=lambda point: point[1])
    last = history.validation[-1][1]
    if last > best + RISEN:
        return (
            f"Overfitted: after {best_at:.0%} of the run the validation loss rose again, by "
            f"{last - best:.3f} nats, while the model memorized its training text. The best "
            "weights were kept. Try a shorter run, a smaller model or a larger --dropout."
        )
    gap = last - history.training[-1][1]
    if gap > WIDE:
        return (
            f"On the way to overfitting: the training loss is {gap:.3f} nats below the validation "
            "loss. More text would help most; a larger --dropout may help too."
        )
    if gap < CLOSE:
        return (
            "Underfitted: the training loss is hardly below the validation loss "
            f"({gap:+.3f} nats). A longer --budget or a larger --hidden-size would help."
        )
    return (
        f"About right: the training loss is {gap:.3f} nats below the validation loss, which was "
        "still falling at the end."
    )
