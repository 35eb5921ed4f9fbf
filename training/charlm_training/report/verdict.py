"""What the curves of a run say about more time, more text and more parameters, in plain words."""

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
    """Whether the model learned too little, too much by heart, or about as it should."""
    if len(history.validation) < 2 or not history.training:
        return "The run was too short to tell whether the model learned too little or too much."
    best_at, best = min(history.validation, key=lambda point: point[1])
    last = history.validation[-1][1]
    if last > best + RISEN:
        return (
            f"Overfitted: after {best_at:.0%} of the run the loss on unseen text rose again, by "
            f"{last - best:.3f} nats, while the model learned its text by heart. The best weights "
            "were kept. A shorter run, a smaller model or more --dropout wastes less."
        )
    gap = last - history.training[-1][1]
    if gap > WIDE:
        return (
            f"On the way to overfitting: the model is {gap:.3f} nats better on the text that it "
            "learns from than on unseen text. More text would help most; so may --dropout."
        )
    if gap < CLOSE:
        return (
            "Underfitted: the model is hardly better on the text that it learns from than on "
            f"unseen text ({gap:+.3f} nats). A longer --budget or a larger --hidden-size would "
            "help."
        )
    return (
        f"About right: the model is {gap:.3f} nats better on the text that it learns from than on "
        "unseen text, and unseen text was still getting better at the end."
    )
