"""`truncation`: how cutting gradients every k tokens changes the loss and their direction.

Source: Tallec & Ollivier (2017), "Unbiasing truncated backpropagation through time", on the bias.
Legend: B rows, T time, P parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_training.budget import Clock, TimeBudget
from charlm_training.corpus.dataset import Data
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.diagnose.windows import spread_windows
from charlm_training.errors import CorpusTooSmall
from charlm_training.evaluation.batched import streamed
from charlm_training.optim.lr_scheduler import Schedule
from charlm_training.planning.options import SizeOptions
from charlm_training.planning.plan import Plan, Planner, tokens_per_s
from charlm_training.report.plot import Curve, Plot
from charlm_training.step.update import token_loss

LENGTHS = (4, 16, 64, 256)
USUAL = 64
SCORED_TOKENS = 50_000
BIAS_ROWS, BIAS_LENGTH = 32, 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One family on one text, and the seconds of every training."""

    family: str
    data: Data
    seconds: float
    seed: int
    announce: Callable[[str], None]
    clock: Clock = time.monotonic


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The result of training with one truncation length."""

    length: int
    nats: float
    tokens: int
    seconds: float
    model: LanguageModel


def diagnose(trial: Trial) -> Diagnosis:
    """Every length at equal characters, every length at equal seconds, and the gradients' bias."""
    plan = _plan(trial)
    tokens = int(tokens_per_s(plan.learner(trial.data), trial.clock) * trial.seconds)
    lengths = lengths_for(len(trial.data.train.ids_N), plan.shape.batch_size)
    by_tokens = [_train(trial, plan, length, tokens) for length in lengths]
    by_seconds = [_train(trial, plan, length, None) for length in lengths]
    usual = max((each for each in by_tokens if each.length <= USUAL), key=lambda each: each.length)
    biases = gradient_biases(usual.model, trial.data, lengths)
    rows = [
        {
            "truncation": length,
            "equal_characters_nats": f"{same_tokens.nats:.5f}",
            "equal_characters_seconds": f"{same_tokens.seconds:.2f}",
            "equal_seconds_nats": f"{same_seconds.nats:.5f}",
            "equal_seconds_tokens": same_seconds.tokens,
            "cosine_to_full_gradient": f"{cosine:.5f}",
            "norm_of_full_gradient": f"{ratio:.5f}",
        }
        for length, same_tokens, same_seconds, (cosine, ratio) in zip(
            lengths, by_tokens, by_seconds, biases, strict=True
        )
    ]
    return Diagnosis(
        name="truncation",
        sentence=_sentence(trial.family, by_tokens, by_seconds, biases),
        rows=rows,
        plots=[_loss_plot(trial.family, by_tokens, by_seconds), _bias_plot(lengths, biases)],
    )


def lengths_for(num_tokens: int, batch_size: int) -> list[int]:
    """Those for which every row of the batch has two windows of text. Raises CorpusTooSmall."""
    lengths = [length for length in LENGTHS if 2 * length * batch_size <= num_tokens]
    if len(lengths) < 2:
        raise CorpusTooSmall(
            f"The training part has {num_tokens} tokens, and a comparison of truncations needs at "
            f"least {2 * LENGTHS[1] * batch_size}. Give it more text."
        )
    return lengths


def gradient_biases(
    model: LanguageModel, data: Data, lengths: Sequence[int]
) -> list[tuple[float, float]]:
    """For every length: the cosine to the full gradient, and the norm as a share of its norm."""
    length = min(BIAS_LENGTH, len(data.train.ids_N) // 2)
    ids_BT = spread_windows(data.train.ids_N, BIAS_ROWS, length + 1)
    full_P = truncated_gradient(model, ids_BT, length)
    found = []
    for cut in lengths:
        cut_P = truncated_gradient(model, ids_BT, cut)
        cosine = torch.nn.functional.cosine_similarity(cut_P, full_P, dim=0)
        found.append((float(cosine), float(cut_P.norm() / full_P.norm())))
    return found


def truncated_gradient(model: LanguageModel, ids_BT: Tensor, length: int) -> Tensor:
    """The gradient (P,) of the mean loss, with the state passed on but cut every `length`."""
    model.eval()
    model.zero_grad(set_to_none=True)
    input_BT, target_BT = ids_BT[:, :-1], ids_BT[:, 1:]
    state = model.initial_state(len(ids_BT))
    for start in range(0, input_BT.shape[1], length):
        piece_BT = target_BT[:, start : start + length]
        logits_BTV, state = model(input_BT[:, start : start + length], state.detach())
        (token_loss(logits_BTV, piece_BT) * piece_BT.numel() / target_BT.numel()).backward()
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    flat_P = torch.cat([gradient.flatten() for gradient in gradients]).double()
    model.zero_grad(set_to_none=True)
    return flat_P


def _plan(trial: Trial) -> Plan:
    budget = TimeBudget(trial.seconds, trial.clock)
    size = SizeOptions(window_length=USUAL)
    return Planner(trial.family, trial.data, budget, size, trial.clock).plan(trial.seed)


def _train(trial: Trial, plan: Plan, length: int, tokens: int | None) -> Trained:
    """Train to so many tokens, or for the trial's seconds."""
    learner = replace(plan, shape=replace(plan.shape, length=length)).learner(trial.data)
    schedule, began = Schedule(peak=plan.learning_rate), trial.clock()

    def progress() -> float:
        if tokens is not None:
            return learner.tokens / tokens
        return (trial.clock() - began) / trial.seconds

    while (now := progress()) < 1:
        learner.step(schedule.rate(now))
    seconds = trial.clock() - began
    nats = streamed(learner.model, trial.data.validation.first(SCORED_TOKENS).ids_N).nats_per_token
    how = "equal seconds" if tokens is None else "equal characters"
    trial.announce(f"cut every {length}, {how}: {nats:.4f} nats per token in {seconds:.1f} s")
    return Trained(
        length=length, nats=nats, tokens=learner.tokens, seconds=seconds, model=learner.model
    )


def _sentence(
    family: str,
    by_tokens: Sequence[Trained],
    by_seconds: Sequence[Trained],
    biases: Sequence[tuple[float, float]],
) -> str:
    same_tokens = min(by_tokens, key=lambda each: each.nats)
    same_seconds = min(by_seconds, key=lambda each: each.nats)
    near = next(
        (run.length for run, (cosine, _) in zip(by_tokens, biases, strict=True) if cosine > 0.99),
        None,
    )
    direction = (
        f"cut every {near} one above 0.99"
        if near is not None
        else f"even cut every {by_tokens[-1].length} one of {biases[-1][0]:.3f}"
    )
    return (
        f"{family} learns most from the same characters when its gradient is cut every "
        f"{same_tokens.length} tokens ({same_tokens.nats:.4f} nats) and from the same seconds when "
        f"it is cut every {same_seconds.length} ({same_seconds.nats:.4f}); cut every "
        f"{by_tokens[0].length} the gradient has a cosine of {biases[0][0]:.3f} to the full one, "
        f"and {direction}."
    )


def _loss_plot(family: str, by_tokens: Sequence[Trained], by_seconds: Sequence[Trained]) -> Plot:
    return Plot(
        title=f"{family}: loss by truncation length",
        x_label="tokens between two cuts of the gradient",
        y_label="nats per token, streamed",
        is_log_x=True,
        curves=[
            Curve(name=name, x=[each.length for each in runs], y=[each.nats for each in runs])
            for name, runs in (("equal characters", by_tokens), ("equal seconds", by_seconds))
        ],
    )


def _bias_plot(lengths: Sequence[int], biases: Sequence[tuple[float, float]]) -> Plot:
    return Plot(
        title="Truncated gradient against the full one",
        x_label="tokens between two cuts of the gradient",
        y_label="share",
        is_log_x=True,
        curves=[
            Curve(name="cosine", x=lengths, y=[cosine for cosine, _ in biases]),
            Curve(name="norm", x=lengths, y=[ratio for _, ratio in biases]),
        ],
    )
