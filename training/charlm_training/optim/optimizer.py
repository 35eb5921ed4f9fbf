"""The optimizer of a run: Muon on the matrices between hidden layers, AdamW on all the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from charlm_model.language_model import LanguageModel
from charlm_training.optim.muon import Muon, rate_on

BETAS = (0.9, 0.99)  # a longer second moment is noisy over the few thousand steps of a short run
# Rows of these belong to single tokens: no matrix in the sense of Muon.
TOKEN_TABLES = ("embedding.", "head.")


class Optimizer:
    """Muon and AdamW as one optimizer, with one learning rate."""

    def __init__(self, model: LanguageModel, *, muon_rate: float, weight_decay: float) -> None:
        """`muon_rate` is Muon's rate at the peak, relative to AdamW's; 0 leaves all to AdamW."""
        self._model, self._muon_rate = model, muon_rate
        matrices, others = _divided(model) if muon_rate else ([], list(model.parameters()))
        self._parts: dict[str, torch.optim.Optimizer] = {"adamw": _adamw(others, weight_decay)}
        if matrices:
            rows = model.config.hidden_size
            self._parts["muon"] = Muon(matrices, block_rows=rows, weight_decay=weight_decay)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate; in place where it is a tensor, because CUDA graphs read it."""
        for name, part in self._parts.items():
            part_rate = rate * self._muon_rate if name == "muon" else rate
            for group in part.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(part_rate)
                else:
                    group["lr"] = part_rate

    def step(self, clip_norm: float) -> Tensor:
        """Clip, update, reset the gradients; returns their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), clip_norm)
        for part in self._parts.values():
            part.step()
            part.zero_grad()
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load moments only: settings stay, because they differ on another device."""
        for name, part in self._parts.items():
            groups = part.state_dict()["param_groups"]
            part.load_state_dict({**state[name], "param_groups": groups})


def _divided(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and not name.startswith(TOKEN_TABLES)
        (matrices if is_matrix else others).append(parameter)
    return matrices, others


def _adamw(parameters: Iterable[nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """Weight decay on matrices alone; the fused kernel is one pass over memory, not a dozen."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    is_on_gpu = parameters[0].is_cuda
    return torch.optim.AdamW(
        groups, lr=rate_on(parameters[0].device), betas=BETAS, fused=True, capturable=is_on_gpu
    )
