"""Muon: momentum whose direction is made orthogonal, for the matrices between hidden layers.

Legend: G blocks of a stacked matrix (gates of a cell; q, k and v), M rows, N columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charlm_model.compiled import halves, orthogonal
from charlm_model.compiled.rows import share_rows
from charlm_model.compiled.team import in_team
from charlm_model.precision import has_fast_bfloat16

MOMENTUM = 0.95
# Each quintic is the best next step towards singular values of 1; three already train as well as
# five of the customary ones (docs/LOG.md). Source: Amsel et al. (2025), "The Polar Express".
QUINTICS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
# Rounding must not push a singular value above the range that the quintics are made for.
SAFETY = 1.01
TINY = 1e-7
PRODUCTS_PER_QUINTIC = 3


class Muon(torch.optim.Optimizer):
    """Steps of equal size in every direction a matrix has, instead of in its few loudest ones.

    A stacked matrix is treated block by block, because gates have nothing to do with each other.

    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, block_rows: int, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": 0.0, "weight_decay": weight_decay})
        self._block_rows = block_rows

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure here
        """One update. There is no closure to call: a step never asks for the loss again."""
        assert closure is None
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            directions = orthogonalized_all([self._ahead(each) for each in parameters])
            for parameter, blocks_GMN in zip(parameters, directions, strict=True):
                scale = max(1.0, blocks_GMN.shape[1] / blocks_GMN.shape[2]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(blocks_GMN.reshape(parameter.shape), alpha=-group["lr"] * scale)

    def _ahead(self, parameter: Tensor) -> Tensor:
        """Where the momentum is going (Nesterov), block by block (G, M, N)."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        ahead = parameter.grad.lerp(momentum, MOMENTUM)
        return ahead.view(self._num_blocks(parameter), -1, parameter.shape[1])

    def _num_blocks(self, parameter: Tensor) -> int:
        whole, rest = divmod(parameter.shape[0], self._block_rows)
        return 1 if rest else whole


def orthogonalized_all(matrices: list[Tensor]) -> list[Tensor]:
    """Each (G, M, N) orthogonalized; blocks of one shape together, whichever matrix they are of."""
    done = list(matrices)
    for shape in {each.shape[1:] for each in matrices}:
        places = [place for place, each in enumerate(matrices) if each.shape[1:] == shape]
        blocks_GMN = orthogonalized(torch.cat([matrices[place] for place in places]))
        parts = blocks_GMN.split([len(matrices[place]) for place in places])
        for place, part in zip(places, parts, strict=True):
            done[place] = part
    return done


def orthogonalized(blocks_GMN: Tensor) -> Tensor:
    """About U V^T of each block X = U S V^T: three times X <- a X + b (XX^T) X + c (XX^T)^2 X.

    The iteration corrects itself, so half precision is enough where the machine has it.
    """
    _, M, N = blocks_GMN.shape
    is_whole = M % halves.PANEL_WIDTH == N % halves.PANEL_WIDTH == 0
    return _in_halves(blocks_GMN) if has_fast_bfloat16() and is_whole else _plainly(blocks_GMN)


def _in_halves(blocks_GMN: Tensor) -> Tensor:
    num, M, N = blocks_GMN.shape
    # A copy, and never a view of the momentum: the kernel works in place.
    flat_GX = blocks_GMN.clone(memory_format=torch.contiguous_format).view(num, M * N)
    quintics = np.array(_safe_quintics(), np.float32)

    def work(rows: slice) -> None:
        sizes = (rows.stop - rows.start, M, N)
        blocks = flat_GX[rows].reshape(-1).numpy()
        orthogonal.orthogonalize(sizes, blocks, quintics, np.float32(SAFETY), np.float32(TINY))

    operations = PRODUCTS_PER_QUINTIC * len(QUINTICS) * M * N * min(M, N)
    share_rows(work, num, operations, together=1, call=in_team)
    return flat_GX.view(num, M, N)


def _plainly(blocks_GMN: Tensor) -> Tensor:
    is_tall = blocks_GMN.shape[1] > blocks_GMN.shape[2]
    dtype = torch.bfloat16 if has_fast_bfloat16() else torch.float32
    x = blocks_GMN.mT if is_tall else blocks_GMN
    x = (x / (x.norm(dim=(1, 2), keepdim=True) * SAFETY + TINY)).to(dtype)
    for a, b, c in _safe_quintics():
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(blocks_GMN.dtype)


def _safe_quintics() -> list[list[float]]:
    return [[f / SAFETY ** (2 * k + 1) for k, f in enumerate(quintic)] for quintic in QUINTICS]
