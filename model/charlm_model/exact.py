"""Matrix products whose every row has the same bits whatever rows travel with it.

Legend: M rows, K inputs, N outputs.
"""

from math import gcd, lcm

import torch
from torch import Tensor
from torch.nn import functional as F

# Without oneDNN a row's bits depend on M below 8 and on M mod 4; multiples of 8 are safe.
_PRODUCT_MULTIPLE = 8
# ATen's vectorized loops handle 32 floats a turn and the rest one by one, with other last bits.
_VECTOR_MULTIPLE = 32


class PackedLinear:
    """y = x W^T + b with the weight laid out once for the processor's widest vectors.

    oneDNN's packed product gives a row the same bits for every M and position, which makes it the
    exact product, and it is two to three times as fast as the default one (docs/decisions/0002).
    Where this build of torch lacks it, rows are padded to a multiple of 8 instead.
    """

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None) -> None:
        self._weight_NK = weight_NK.detach().float().contiguous()
        self._bias_N = None if bias_N is None else bias_N.detach().float().contiguous()
        self._packed = _pack(self._weight_NK)

    def __call__(self, x: Tensor) -> Tensor:
        x_MK = x.reshape(-1, x.shape[-1])
        if self._packed is None:
            y_MN = padded_linear(x_MK, self._weight_NK, self._bias_N)
        else:
            y_MN = torch.ops.mkldnn._linear_pointwise(
                x_MK, self._packed, self._bias_N, "none", [], ""
            )
        return y_MN.view(*x.shape[:-1], -1)


def padded_linear(x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """F.linear with the rows padded up to a multiple of 8."""
    padded = pad_rows(x_MK, _PRODUCT_MULTIPLE)
    return F.linear(padded, weight_NK, bias_N)[: len(x_MK)]


def pad_rows(x: Tensor, multiple: int) -> Tensor:
    """Zero rows added below until their number is a multiple."""
    missing = -len(x) % multiple
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x


def row_multiple(width: int) -> int:
    """The smallest number of rows of this width that fills whole vectors."""
    fills_vectors = _VECTOR_MULTIPLE // gcd(width, _VECTOR_MULTIPLE)
    return lcm(fills_vectors, 1 if has_packed_product() else _PRODUCT_MULTIPLE)


def has_packed_product() -> bool:
    """Whether this build of torch has oneDNN's packed product."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    )


def _pack(weight_NK: Tensor) -> Tensor | None:
    if not has_packed_product() or weight_NK.device.type != "cpu":
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_NK, 64)
    return packed
