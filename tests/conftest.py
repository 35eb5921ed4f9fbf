"""Without a GPU, kernels for one run in Triton's interpreter: said before Triton is imported."""

import os

import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes says nothing: the first one may compile kernels. Benchmarks time.
settings.register_profile("charlm", deadline=None)
settings.load_profile("charlm")
