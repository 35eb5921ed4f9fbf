"""All weights of a model in one flat array, in the layout that kernels read."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.kernels.cpu.matmul import panels_of
from charlm_model.kernels.cpu.simd import LANES
from charlm_model.tensor_memory import aligned

Floats = NDArray[np.float32]


def lanes_of(width: int) -> int:
    """The width, rounded up to whole vectors."""
    return -(-width // LANES) * LANES


def array_of(tensor: Tensor) -> Floats:
    return tensor.detach().float().contiguous().numpy()


def zeros(length: int) -> Floats:
    """Zeros aligned to a vector, which is one cache line."""
    return aligned(np.zeros(length + LANES, np.float32), length)


class Packer:
    """Concatenates arrays and returns the offset of each."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []
        self._length = 0

    def add(self, values: Floats) -> int:
        """Add values, padded to whole vectors; returns their offset."""
        at = self._length
        part = np.zeros(lanes_of(values.size), np.float32)
        part[: values.size] = values.ravel()
        self._parts.append(part)
        self._length += part.size
        return at

    def add_panels(self, weight_NK: Floats) -> int:
        """Add the weights of a matrix product as panels; returns their offset."""
        return self.add(panels_of(weight_NK))

    def packed(self) -> Floats:
        all_parts = zeros(self._length)
        np.concatenate(self._parts, out=all_parts)
        return all_parts
