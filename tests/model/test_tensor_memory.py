"""Tensors are aligned, and copied without torch's threads."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from charlm_model.tensor_memory import bits_of, clone, copy, fill_zeros, zeros

KINDS = [torch.float32, torch.bfloat16, torch.int64]
CPU = torch.device("cpu")
LIVELY = Path(__file__).with_name("lively.py")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (2, 5, 7), (700_000,), (0, 4)])
def test_zeros_are_zero_and_aligned(kind: torch.dtype, shape: tuple[int, ...]) -> None:
    found = zeros(shape, kind, CPU)

    assert torch.equal(found, torch.zeros(shape, dtype=kind))
    assert found.dtype == kind
    assert not found.numel() or found.data_ptr() % 64 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_clone_has_the_same_bits_in_other_memory(kind: torch.dtype) -> None:
    source = torch.arange(24).to(kind).reshape(4, 6)
    target = zeros((4, 3), kind, CPU)

    copy(target, source[:, ::2])
    cloned = clone(source[:, ::2])
    fill_zeros(source[1])

    assert torch.equal(target, torch.arange(24).to(kind).reshape(4, 6)[:, ::2])
    assert torch.equal(cloned, target)
    assert cloned.is_contiguous()
    assert cloned.data_ptr() % 64 == 0
    assert source[1].count_nonzero() == 0


def test_copy_needs_equal_types_and_shapes() -> None:
    with pytest.raises(AssertionError):
        copy(zeros((3,), torch.bfloat16, CPU), torch.ones(3))
    with pytest.raises(AssertionError):
        copy(zeros((3,), torch.float32, CPU), torch.ones(1))


def test_bits_share_the_memory() -> None:
    tensor = torch.ones(3, dtype=torch.bfloat16)

    bits_of(tensor)[1] = 0

    assert tensor.tolist() == [1, 0, 1]


@pytest.mark.parametrize("family", ["gru", "transformer"])
def test_decoding_uses_no_threads_of_torch(family: str) -> None:
    """torch's threads would spin on the cores that our kernels' threads need."""
    told = subprocess.run(
        [sys.executable, LIVELY, family], capture_output=True, text=True, check=True, timeout=120
    )

    num_before, num_after, num_own = map(int, told.stdout.split())
    assert num_own > 0
    assert num_after == num_before
