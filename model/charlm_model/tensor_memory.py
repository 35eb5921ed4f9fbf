"""Allocates and copies tensors on a CPU without torch's threads; on other devices with torch.

torch splits a copy of more than 32,768 numbers among threads, which then spin for a while on cores
that the threads of our kernels need.
"""

import math
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Kind = TypeVar("Kind", bound=np.generic)
CACHE_LINE_BYTES = 64  # vectors that span two cache lines are read slower
_LARGE_BYTES = 1 << 20


def bits_of(tensor: Tensor) -> NDArray[Any]:
    """A numpy view of a CPU tensor without gradient; bfloat16, which numpy lacks, as int16."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = bits.numpy()
    return array


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU aligned to a cache line, and large ones lazily allocated."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = math.prod(shape) * dtype.itemsize
    buffer = aligned(_buffer(num_bytes + CACHE_LINE_BYTES), num_bytes)
    return torch.from_numpy(buffer).view(dtype).view(shape)


def aligned(buffer: NDArray[Kind], length: int) -> NDArray[Kind]:
    """The first `length` numbers from a cache line's start; the buffer has a line to spare."""
    first = -(buffer.ctypes.data // buffer.itemsize) % (CACHE_LINE_BYTES // buffer.itemsize)
    return buffer[first : first + length]


def _buffer(num_bytes: int) -> NDArray[np.uint8]:
    """Zeros; large buffers come from mmap, so that they return to the system when freed."""
    if num_bytes < _LARGE_BYTES:
        return np.zeros(num_bytes, np.uint8)
    return np.frombuffer(mmap(-1, num_bytes, flags=MAP_PRIVATE | MAP_ANONYMOUS), np.uint8)


def copy(target: Tensor, source: Tensor) -> None:
    """Overwrite the target; both have the same shape, type and device."""
    assert (target.shape, target.dtype) == (source.shape, source.dtype)
    if target.device.type == "cpu":
        bits_of(target)[...] = bits_of(source)
    else:
        target.copy_(source)


def fill_zeros(target: Tensor) -> None:
    """Fill with zeros."""
    if target.device.type == "cpu":
        bits_of(target)[...] = 0
    else:
        target.zero_()


def clone(tensor: Tensor) -> Tensor:
    """A contiguous copy."""
    fresh = zeros(tuple(tensor.shape), tensor.dtype, tensor.device)
    copy(fresh, tensor)
    return fresh
