"""Tensors as the kernels for training want them.

Legend: N outputs, K inputs.
"""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.compiled import halves_layout


def flat(tensor: Tensor) -> NDArray[Any]:
    """The same memory; bfloat16, which numpy lacks, as int16."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = bits.detach().reshape(-1).numpy()
    return array


def panels(weight_NK: Tensor) -> NDArray[Any]:
    """For x W^T: in each panel of outputs pair of inputs by pair of inputs."""
    N, K = weight_NK.shape
    halves, packed = torch.empty(2, N * K, dtype=torch.bfloat16)
    halves_layout.halves_of(flat(weight_NK), 0, K, N, K, flat(halves))
    halves_layout.panels_of_rows(flat(halves), N, K, flat(packed))
    return flat(packed)


def panels_back(weight_NK: Tensor) -> NDArray[Any]:
    """For y W: outputs are the inputs of before, and the other way round."""
    N, K = weight_NK.shape
    packed = torch.empty(N * K, dtype=torch.bfloat16)
    halves_layout.panels_of_columns(flat(weight_NK), 0, K, N, K, N, flat(packed))
    return flat(packed)
