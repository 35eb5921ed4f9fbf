"""Training steps, ours beside plain PyTorch's: characters per second as ratios in one run.

    python benchmarks/training_speed.py

Same sizes, same batch, dropout 0.1, whole steps: forward, backward, clipping, update. Ours updates
by Muon, which is more work than the AdamW of the plain steps. Random tokens; rounds take turns.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from plain_gpt import PlainGPT
from torch import Tensor, nn
from torch.nn import functional as F

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_training.corpus.windows import BatchShape, StreamWindows
from charlm_training.planning.presets import RECIPES
from charlm_training.step.learner import Learner

V, T, E, DROPOUT = 66, 64, 64, 0.1
ROUNDS, ROUND_S = 5, 1.5
FLOPS_PER_WEIGHT = 6
Step = Callable[[], None]


class PlainRecurrent(nn.Module):
    """An embedding, PyTorch's own layer, a head."""

    def __init__(self, kind: type[nn.RNNBase], width: int) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(V, E), nn.Dropout(DROPOUT)
        self.recurrent: nn.Module = kind(E, width, batch_first=True)  # type: ignore[arg-type]
        self.head = nn.Linear(width, V)

    def forward(self, ids_BT: Tensor) -> Tensor:
        hidden_BTH, _ = self.recurrent(self.embedding(ids_BT))
        logits_BTV: Tensor = self.head(self.dropout(hidden_BTH))
        return logits_BTV


def plain_step(model: nn.Module, batch: int) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids_BT = torch.randint(1, V, (batch, T + 1))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits_BTV = model(ids_BT[:, :-1])
        F.cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def our_step(config: ModelConfig, batch: int) -> tuple[Step, int]:
    """A step of ours, and how many weights multiply every token."""
    recipe = RECIPES[config.family]
    ids_N = np.random.default_rng(0).integers(1, V, batch * T * 64)
    learner = Learner(
        build(config),
        StreamWindows(ids_N, BatchShape(batch_size=batch, length=T, seed=0)),
        clip_norm=recipe.clip_norm,
        weight_decay=recipe.weight_decay,
        muon_rate=recipe.muon_rate,
    )
    named = learner.model.named_parameters()
    weights = sum(p.numel() for name, p in named if p.ndim == 2 and "embedding" not in name)
    return lambda: void(learner.step(1e-3)), weights


def void(_: object) -> None: ...


def recurrent_case(family: str, width: int, batch: int) -> dict[str, object]:
    config = ModelConfig(
        family=family, vocab_size=V, embedding_size=E, hidden_size=width, dropout=DROPOUT
    )
    kind = {"lstm": nn.LSTM, "gru": nn.GRU}[family]
    ours, weights = our_step(config, batch)
    steps = {"charlm": ours, f"nn.{kind.__name__}": plain_step(PlainRecurrent(kind, width), batch)}
    return {"case": f"{family} {width}, batch {batch}", **measured(steps, batch, weights)}


def transformer_case(width: int, layers: int, heads: int, batch: int) -> dict[str, object]:
    config = ModelConfig(
        family="transformer",
        vocab_size=V,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        dropout=DROPOUT,
        context_length=T,
    )
    ours, weights = our_step(config, batch)
    steps = {"charlm": ours}
    for name, compiled in (("GPT eager", False), ("GPT torch.compile", True)):
        plain = PlainGPT(V, num_layers=layers, num_heads=heads, width=width, block=T)
        steps[name] = plain_step(torch.compile(plain) if compiled else plain, batch)  # type: ignore[arg-type]
    case = f"transformer {layers} x {width}, batch {batch}"
    return {"case": case, **measured(steps, batch, weights)}


def measured(steps: dict[str, Step], batch: int, weights: int) -> dict[str, object]:
    """Medians over rounds that take turns; the share of the peak is of bfloat16 products."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():  # compiles, allocates
        step()
        step()
    for _ in range(ROUNDS):
        for name, step in steps.items():
            rates[name].append(rate(step, batch))
    ratios = {
        name: spread([ours / theirs for ours, theirs in zip(rates["charlm"], each, strict=True)])
        for name, each in rates.items()
        if name != "charlm"
    }
    median = statistics.median(rates["charlm"])
    achieved = FLOPS_PER_WEIGHT * weights * median
    return {
        "characters_per_s": {name: round(statistics.median(each)) for name, each in rates.items()},
        "ratios": ratios,
        "gflops": achieved / 1e9,
        "share_of_float32_peak": achieved / matmul_peak(torch.float32),
        "share_of_bfloat16_peak": achieved / matmul_peak(torch.bfloat16),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def rate(step: Step, batch: int) -> float:
    """Characters per second over one round."""
    began, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < ROUND_S:
        step()
        steps += 1
    return steps * batch * T / elapsed


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few large products."""
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    fastest = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * 2048**3 / fastest


def run() -> list[dict[str, object]]:
    return [
        recurrent_case("lstm", 256, 32),
        recurrent_case("lstm", 384, 32),
        recurrent_case("lstm", 512, 32),
        recurrent_case("gru", 256, 32),
        recurrent_case("gru", 384, 32),
        transformer_case(96, 4, 2, 16),
        transformer_case(96, 4, 2, 32),
        transformer_case(128, 4, 4, 12),
        transformer_case(128, 4, 4, 32),
    ]


if __name__ == "__main__":
    json.dump(run(), sys.stdout, indent=1)
