"""Without a GPU, kernels for one run in Triton's interpreter: said before Triton is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
