"""The optimizer: AdamW with weight decay on matrices alone."""

from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.9, 0.99)  # a longer second moment is noisy over the few thousand steps of a short run


def build_optimizer(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over all parameters; the learning rate is set anew before every step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # The fused kernel is one pass over memory instead of a dozen.
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients down to a joint norm; returns the norm before."""
    return float(nn.utils.clip_grad_norm_(list(parameters), max_norm))
