"""A model's kernels for a GPU, run by Triton's interpreter on the processor."""

import os

import pytest
import torch

from charlm_model.gpu.model import GpuModel
from charlm_model.kernels.triton.tiling import Tile, Tiling
from charlm_model.language_model import LanguageModel

# The interpreter multiplies by numpy, whose bits depend on the rows multiplied: one tile for all.
TILING = Tiling((Tile(rows=4, columns=64, depth=64, num_warps=1, num_stages=1, at_least=1),))


def interpreted(model: LanguageModel) -> GpuModel:
    """Skips the test where Triton compiles: there, `tests/gpu` asks the compiled kernels."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("a GPU is here: see tests/gpu")
    return GpuModel(model, torch.device("cpu"), TILING)
