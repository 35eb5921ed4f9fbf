"""`context`: how many tokens of context a model uses, and whether the order of far ones matters.

Source: Khandelwal et al. (2018), "Sharp nearby, fuzzy far away". B rows, T time, K context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.diagnose.windows import spread_windows
from charlm_training.report.plot import Curve, Plot

FULL = 256
KEPT = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
NUM_TARGETS, ROWS_AT_ONCE = 1024, 64
NEGLIGIBLE_NATS = 0.01
# The band around a mean, in standard errors.
BAND = 2.0
KINDS = ("dropped", "shuffled", "replaced")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """The extra loss when only the last `kept` tokens are unchanged."""

    kind: str
    kept: int
    extra_nats: float
    standard_error: float


def diagnose(subjects: Sequence[DiagnosedModel]) -> Diagnosis:
    """For each model, the extra loss by how much of the nearest context is left untouched."""
    losses = {subject.name: losses_of(subject) for subject in subjects}
    rows = [
        {
            "model": name,
            "far_context": loss.kind,
            "kept": loss.kept,
            "extra_nats": f"{loss.extra_nats:.5f}",
            "standard_error": f"{loss.standard_error:.5f}",
        }
        for name, found in losses.items()
        for loss in found
    ]
    said = "; ".join(_sentence(subject, losses[subject.name]) for subject in subjects)
    plots = [_plot(name, found) for name, found in losses.items()]
    return Diagnosis(name="context", sentence=f"{said}.", rows=rows, plots=plots)


def losses_of(subject: DiagnosedModel) -> list[Loss]:
    """Every way to spoil far context, at every distance, always with the same targets."""
    length = min(FULL, len(subject.validation.ids_N) // 2)
    ids_BT = spread_windows(subject.validation.ids_N, NUM_TARGETS, length + 1)
    context_BK, target_B = ids_BT[:, :-1], ids_BT[:, -1]
    whole_B = surprisals(subject.model, context_BK, target_B)
    found = []
    for kind in KINDS:
        for kept in (each for each in KEPT if each < length):
            spoiled_BK = SPOILERS[kind](context_BK, kept)
            extra_B = surprisals(subject.model, spoiled_BK, target_B) - whole_B
            error = float(extra_B.std()) / len(extra_B) ** 0.5
            found.append(
                Loss(kind=kind, kept=kept, extra_nats=float(extra_B.mean()), standard_error=error)
            )
    return found


@torch.inference_mode()
def surprisals(model: LanguageModel, context_BK: Tensor, target_B: Tensor) -> Tensor:
    """Nats (B,) of each target after its context, read from a fresh state."""
    model.eval()
    parts = []
    for ids_BK, wanted_B in zip(
        context_BK.split(ROWS_AT_ONCE), target_B.split(ROWS_AT_ONCE), strict=True
    ):
        logits_BKV, _ = model(ids_BK, model.initial_state(len(ids_BK)))
        logprobs_BV = logits_BKV[:, -1].double().log_softmax(-1)
        parts.append(-logprobs_BV.gather(1, wanted_B[:, None])[:, 0])
    return torch.cat(parts)


def dropped(context_BK: Tensor, kept: int) -> Tensor:
    """The last tokens alone."""
    return context_BK[:, -kept:]


def shuffled(context_BK: Tensor, kept: int) -> Tensor:
    """The same far tokens in another order, which is random but always the same."""
    far = context_BK.shape[1] - kept
    order = torch.randperm(far, generator=torch.Generator().manual_seed(far))
    return torch.cat([context_BK[:, :far][:, order], context_BK[:, far:]], 1)


def replaced(context_BK: Tensor, kept: int) -> Tensor:
    """Far context from elsewhere in the text: from the row half the rows away."""
    far = context_BK.shape[1] - kept
    other_BK = context_BK.roll(len(context_BK) // 2, 0)
    return torch.cat([other_BK[:, :far], context_BK[:, far:]], 1)


SPOILERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "dropped": dropped,
    "shuffled": shuffled,
    "replaced": replaced,
}


def effective_length(losses: Sequence[Loss], kind: str) -> int | None:
    """The smallest number of kept tokens from which on the rest is worth < 0.01 nats.

    None when even the most that was tried is not enough.
    """
    enough = None
    for loss in sorted((each for each in losses if each.kind == kind), key=lambda each: -each.kept):
        if loss.extra_nats >= NEGLIGIBLE_NATS:
            break
        enough = loss.kept
    return enough


def _sentence(subject: DiagnosedModel, losses: Sequence[Loss]) -> str:
    lengths = {kind: effective_length(losses, kind) for kind in KINDS}
    most = max(loss.kept for loss in losses)
    error = next(
        loss.standard_error
        for loss in losses
        if loss.kind == KINDS[0] and loss.kept == (lengths[KINDS[0]] or most)
    )
    uses, orders, notices = (lengths[kind] for kind in KINDS)
    said = (
        f"{subject.name} uses more than its last {most} {subject.token_name}"
        if uses is None
        else f"{subject.name} uses its last {uses} {subject.token_name}: the rest is worth less "
        f"than {NEGLIGIBLE_NATS} nats"
    )
    order = f"matters beyond {most}" if orders is None else f"does not matter beyond {orders}"
    other = f"is noticed beyond {most}" if notices is None else f"goes unnoticed beyond {notices}"
    return f"{said} (standard error {error:.3f}); their order {order}, and other text {other}"


def _plot(name: str, losses: Sequence[Loss]) -> Plot:
    return Plot(
        title=f"Loss of {name} without its far context",
        x_label="tokens that are left as they were",
        y_label="extra nats per token",
        is_log_x=True,
        levels=[("negligible", NEGLIGIBLE_NATS)],
        curves=[_curve(kind, [each for each in losses if each.kind == kind]) for kind in KINDS],
    )


def _curve(kind: str, losses: Sequence[Loss]) -> Curve:
    means = [loss.extra_nats for loss in losses]
    margins = [BAND * loss.standard_error for loss in losses]
    return Curve(
        name=kind,
        x=[loss.kept for loss in losses],
        y=means,
        band=(
            [mean - margin for mean, margin in zip(means, margins, strict=True)],
            [mean + margin for mean, margin in zip(means, margins, strict=True)],
        ),
    )
