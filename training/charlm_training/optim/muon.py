"""Muon: momentum made orthogonal, for the matrices between hidden layers.

Legend: G blocks of a stacked matrix (gates of a cell; q, k and v), M rows, N columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm_model.kernels.cpu_training import muon
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH
from charlm_model.kernels.threads.openmp_team import run_in_team
from charlm_model.kernels.threads.row_sharding import num_threads_for
from charlm_model.layers.mixed_precision import has_bfloat16_kernels, has_fast_bfloat16

MOMENTUM = 0.95
# Each quintic is the best next step towards singular values of 1; three already train as well as
# five of the customary ones (docs/log/training-recipes.md).
# Source: Amsel et al. (2025), "The Polar Express".
QUINTICS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)
# Rounding must not push a singular value above the range that the quintics are made for.
SAFETY = 1.01
TINY = 1e-7
PRODUCTS_PER_QUINTIC = 3
Array = NDArray[np.float32]


class Muon(torch.optim.Optimizer):
    """Steps of equal size in all singular directions of a matrix.

    A stacked matrix is treated block by block, because gates have nothing to do with each other.

    Source: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks".
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, block_rows: int, weight_decay: float
    ) -> None:
        parameters = list(params)
        rate = rate_on(parameters[0].device)
        super().__init__(parameters, {"lr": rate, "weight_decay": weight_decay})
        self._block_rows = block_rows

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure here
        """One update. There is no closure to call: a step never asks for the loss again."""
        assert closure is None
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            self._step_by_kernels(group, [each for each in parameters if self._has_kernel(each)])
            self._step_by_torch(group, [each for each in parameters if not self._has_kernel(each)])

    def _has_kernel(self, parameter: Tensor) -> bool:
        """Whether our kernels support the shape of its blocks."""
        is_in_panels = all(size % PANEL_WIDTH == 0 for size in self._block_shape(parameter))
        return has_bfloat16_kernels(parameter.device) and is_in_panels

    def _step_by_kernels(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """All blocks of all matrices, the most expensive first, distributed over the threads."""
        blocks = [block for each in parameters for block in self._blocks(group, each)]
        blocks.sort(key=lambda block: block.num_operations, reverse=True)
        num_operations = sum(block.num_operations for block in blocks)
        num_threads = num_threads_for(num_operations, len(blocks))

        def work(share: slice) -> None:
            for block in blocks[share]:
                block.step()

        shares = [slice(first, None, num_threads) for first in range(num_threads)]
        run_in_team(work, shares, num_threads)

    def _blocks(self, group: dict[str, Any], parameter: Tensor) -> list[MuonBlock]:
        assert parameter.grad is not None
        M, N = shape = self._block_shape(parameter)
        tensors = parameter, parameter.grad.contiguous(), self._momentum(parameter)
        weights, gradient, momentum = (each.view(-1).numpy() for each in tensors)
        numbers = MOMENTUM, SAFETY, TINY, *_shrink_and_rate(group, shape)
        factors = muon.Factors(*map(np.float32, numbers))
        starts = range(0, parameter.numel(), M * N)
        return [MuonBlock(shape, start, (weights, gradient, momentum), factors) for start in starts]

    def _step_by_torch(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        directions = orthogonalized_all([self._ahead(each) for each in parameters])
        for parameter, blocks_GMN in zip(parameters, directions, strict=True):
            shrink, rate = _shrink_and_rate(group, self._block_shape(parameter))
            parameter.mul_(shrink).sub_(blocks_GMN.reshape(parameter.shape) * rate)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum

    def _ahead(self, parameter: Tensor) -> Tensor:
        """Where the momentum is going (Nesterov), block by block (G, M, N)."""
        assert parameter.grad is not None
        momentum = self._momentum(parameter).lerp_(parameter.grad, 1 - MOMENTUM)
        ahead = parameter.grad.lerp(momentum, MOMENTUM)
        return ahead.view(-1, *self._block_shape(parameter))

    def _block_shape(self, parameter: Tensor) -> tuple[int, int]:
        num_rows, num_columns = parameter.shape
        return num_rows if num_rows % self._block_rows else self._block_rows, num_columns


@dataclass(frozen=True, slots=True)
class MuonBlock:
    """One block of a matrix. `arrays` are its matrix, gradient and momentum, each flat."""

    shape: tuple[int, int]
    start: int
    arrays: tuple[Array, Array, Array]
    factors: muon.Factors

    @property
    def num_operations(self) -> int:
        M, N = self.shape
        return PRODUCTS_PER_QUINTIC * len(QUINTICS) * M * N * min(M, N)

    def step(self) -> None:
        muon.step(self.shape, self.start, *self.arrays, _quintics(), self.factors)


def rate_on(device: torch.device) -> float | Tensor:
    """A rate to be set later; on a GPU a tensor, which CUDA graphs read."""
    return 0.0 if device.type == "cpu" else torch.zeros((), device=device)


def _shrink_and_rate(group: dict[str, Any], shape: tuple[int, int]) -> tuple[Any, Any]:
    """The factor of weight decay, and the step size, scaled for the shape of the matrix."""
    M, N = shape
    return 1 - group["lr"] * group["weight_decay"], group["lr"] * max(1.0, M / N) ** 0.5


@cache
def _quintics() -> Array:
    return np.array(_safe_quintics(), np.float32)


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
    is_tall = blocks_GMN.shape[1] > blocks_GMN.shape[2]
    dtype = torch.bfloat16 if has_fast_bfloat16(blocks_GMN.device) else torch.float32
    x = blocks_GMN.mT if is_tall else blocks_GMN
    x = (x / (x.norm(dim=(1, 2), keepdim=True) * SAFETY + TINY)).to(dtype)
    for a, b, c in _safe_quintics():
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(blocks_GMN.dtype)


def _safe_quintics() -> list[list[float]]:
    return [[f / SAFETY ** (2 * k + 1) for k, f in enumerate(quintic)] for quintic in QUINTICS]
