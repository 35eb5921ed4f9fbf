"""Packs tensors for the training kernels and splits a batch among threads.

Legend: B batch, T time, N outputs, K inputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.kernels.cpu_training import bfloat16_panels
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH
from charlm_model.kernels.threads.openmp_team import run_in_team
from charlm_model.kernels.threads.row_sharding import shard_rows

_OPERATIONS_PER_WEIGHT = 2
_ROWS_PER_TILE = 4  # the kernels' smaller tile, which splits a batch of 24 more evenly


def supports_sizes(num_inputs: int, num_outputs: int) -> bool:
    """Whether the recurrent kernels support these sizes: whole panels, an even number of inputs."""
    return num_outputs % PANEL_WIDTH == 0 and num_inputs % 2 == 0


def shard_windows(work: Callable[[slice], None], B: int, T: int, num_weights: int) -> None:
    """Call `work` with slices of the rows of a batch, in several threads where it is worth it."""
    operations = _OPERATIONS_PER_WEIGHT * T * num_weights
    shard_rows(work, B, operations, _ROWS_PER_TILE, run_in_team)


def flat(tensor: Tensor) -> NDArray[Any]:
    """The same memory; bfloat16, which numpy lacks, as int16."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = bits.detach().reshape(-1).numpy()
    return array


def panels(weight_NK: Tensor) -> NDArray[Any]:
    """Panels for x W^T, ordered by pairs of inputs."""
    N, K = weight_NK.shape
    packed = torch.empty(N * K, dtype=torch.bfloat16)
    bfloat16_panels.panels_of_rows(flat(weight_NK.bfloat16()), N, K, flat(packed))
    return flat(packed)


def backward_panels(weight_NK: Tensor) -> NDArray[Any]:
    """Panels for y W, as the backward pass needs them: inputs and outputs are exchanged."""
    N, K = weight_NK.shape
    packed = torch.empty(N * K, dtype=torch.bfloat16)
    bfloat16_panels.panels_of_columns(flat(weight_NK), 0, K, N, K, N, flat(packed))
    return flat(packed)
