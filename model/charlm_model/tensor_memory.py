"""Memory of tensors on a CPU, written without torch's own threads; elsewhere torch does it.

torch shares a copy of more than 32,768 numbers out to threads that spin for a while afterwards, on
the cores that the threads of our kernels would have.
"""

import math
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Kind = TypeVar("Kind", bound=np.generic)
LINE_BYTES = 64  # reading what lies across two lines takes longer
_LARGE_BYTES = 1 << 20


def bits_of(tensor: Tensor) -> NDArray[Any]:
    """The same memory, on a CPU, of no gradient history; bfloat16, which numpy lacks, as int16."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = bits.numpy()
    return array


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """On a CPU many take no memory before they are written to, and begin with a line."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    num_bytes = math.prod(shape) * dtype.itemsize
    room = from_line(_room(num_bytes + LINE_BYTES), num_bytes)
    return torch.from_numpy(room).view(dtype).view(shape)


def from_line(room: NDArray[Kind], length: int) -> NDArray[Kind]:
    """So many numbers from where a line begins; the room has a line more."""
    first = -(room.ctypes.data // room.itemsize) % (LINE_BYTES // room.itemsize)
    return room[first : first + length]


def _room(num_bytes: int) -> NDArray[np.uint8]:
    """Zeros; where they are many they go back to the system, as a heap would not let them."""
    if num_bytes < _LARGE_BYTES:
        return np.zeros(num_bytes, np.uint8)
    return np.frombuffer(mmap(-1, num_bytes, flags=MAP_PRIVATE | MAP_ANONYMOUS), np.uint8)


def copy(target: Tensor, source: Tensor) -> None:
    """Write over the target; they are of one shape and kind, and on one device."""
    assert (target.shape, target.dtype) == (source.shape, source.dtype)
    if target.device.type == "cpu":
        bits_of(target)[...] = bits_of(source)
    else:
        target.copy_(source)


def clear(target: Tensor) -> None:
    """Write zeros over it."""
    if target.device.type == "cpu":
        bits_of(target)[...] = 0
    else:
        target.zero_()


def clone(tensor: Tensor) -> Tensor:
    """The same values in memory of their own, row by row."""
    fresh = zeros(tuple(tensor.shape), tensor.dtype, tensor.device)
    copy(fresh, tensor)
    return fresh
