"""`order`: how well the last few tokens predict the next, from 0 to 8 tokens of context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from charlm_training.corpus.dataset import Data, EncodedText
from charlm_training.corpus.token_file import Ids
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.evaluation.batched import evaluate
from charlm_training.report.plot import Curve, Plot
from charlm_training.run.ngram_baseline import fit_ngram

HIGHEST = 8
# Enough for two digits after the point; the whole of a small text.
TRAIN_TOKENS, EVALUATED_TOKENS = 3_000_000, 200_000
FLAT_NATS = 0.01


def diagnose(data: Data) -> Diagnosis:
    """AR(tau) for tau = 0 to 8: fitted on the training part, scored on both parts."""
    data = replace(data, train=data.train.first(TRAIN_TOKENS))
    parts = {
        "train": data.train.first(EVALUATED_TOKENS),
        "validation": data.validation.first(EVALUATED_TOKENS),
    }
    losses: dict[str, list[float]] = {name: [] for name in parts}
    for order in range(HIGHEST + 1):
        score = scorer(data, order)
        for name, part in parts.items():
            losses[name].append(score(part))
    rows = [
        {"order": order, **{f"{name}_nats": f"{nats[order]:.5f}" for name, nats in losses.items()}}
        for order in range(HIGHEST + 1)
    ]
    plot = Plot(
        title="Loss by the number of tokens that are looked at",
        x_label="order: tokens of context",
        y_label="nats per token",
        curves=[
            Curve(name=name, x=range(HIGHEST + 1), y=nats, is_dashed=name == "train")
            for name, nats in losses.items()
        ],
    )
    return Diagnosis(name="order", sentence=finding(losses["validation"]), rows=rows, plots=[plot])


def scorer(data: Data, order: int) -> Callable[[EncodedText], float]:
    """Nats per token of a part, under the model of that order."""
    if order == 0:
        size = data.vocabulary.size
        return lambda part: independent(data.train.ids_N, part.ids_N, size)
    model = fit_ngram(data, order=order)
    return lambda part: evaluate(model, part)[-1].nats_per_token


def independent(train_N: Ids, scored_N: Ids, vocab_size: int) -> float:
    """Nats per token of the i.i.d. model: shares of the training text, one added to each count."""
    counts_V = np.bincount(train_N[1:], minlength=vocab_size) + 1.0
    logprobs_V = np.log(counts_V / counts_V.sum())
    return -float(logprobs_V[scored_N[1:]].mean())


def finding(nats: list[float]) -> str:
    """What the first token of context gains, where gaining ends, and the price of i.i.d."""
    best = int(np.argmin(nats))
    enough = next(order for order, loss in enumerate(nats) if loss < nats[best] + FLAT_NATS)
    said = (
        f"Taken as independent draws a token costs {nats[0]:.4f} nats; looking at one token back "
        f"saves {nats[0] - nats[1]:.4f}, at {best} back {nats[0] - nats[best]:.4f} (the best of "
        f"0 to {len(nats) - 1}), and {enough} are enough to come within {FLAT_NATS} of that"
    )
    if nats[best] > nats[0] - FLAT_NATS:
        return f"{said}: this text is as good as i.i.d."
    ratio = np.exp(nats[0] - nats[best])
    return f"{said}: an i.i.d. model gives every token a {ratio:.1f} times too small probability."
