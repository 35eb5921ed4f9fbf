"""All weights of a model in one flat array, each where its kernel looks for it."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.kernels.cpu.matmul import panels_of
from charlm_model.kernels.cpu.simd import LANES
from charlm_model.tensor_memory import from_line

Floats = NDArray[np.float32]


def lanes_of(width: int) -> int:
    """The width, rounded up to whole vectors."""
    return -(-width // LANES) * LANES


def array_of(tensor: Tensor) -> Floats:
    return tensor.detach().float().contiguous().numpy()


def zeros(length: int) -> Floats:
    """They begin where a vector in memory does, which is a line long."""
    return from_line(np.zeros(length + LANES, np.float32), length)


class Packer:
    """Collects arrays; says where each begins."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []
        self._length = 0

    def add(self, values: Floats) -> int:
        """Where the values begin; they are padded to whole vectors."""
        at = self._length
        part = np.zeros(lanes_of(values.size), np.float32)
        part[: values.size] = values.ravel()
        self._parts.append(part)
        self._length += part.size
        return at

    def add_panels(self, weight_NK: Floats) -> int:
        """Where the weights of a product begin."""
        return self.add(panels_of(weight_NK))

    def packed(self) -> Floats:
        all_parts = zeros(self._length)
        np.concatenate(self._parts, out=all_parts)
        return all_parts
