"""y += x W^T: each output is one chain of fused multiply-adds over its inputs, in order.

oneDNN's packed products compute the same up to about a thousand inputs, at the same speed
(docs/decisions/0002).

Legend: M rows, K inputs, N outputs, P panels.
"""

import numpy as np
from numpy.typing import NDArray

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.matmul_tile import PANEL_WIDTH, tile

Floats = NDArray[np.float32]

_eight_rows = tile(8, 1)
_four_rows, _four_rows_one_panel = tile(4, 2), tile(4, 1)
_one_row, _one_row_two_panels, _one_row_one_panel = tile(1, 4), tile(1, 2), tile(1, 1)


def padded(width: int) -> int:
    """The width, rounded up to whole panels."""
    return -(-width // PANEL_WIDTH) * PANEL_WIDTH


def panels_of(weight_NK: Floats) -> Floats:
    """The weights as `add_product` reads them, flat: panel by panel, and in a panel by input."""
    outputs, inputs = weight_NK.shape
    rows = np.zeros((padded(outputs), inputs), np.float32)
    rows[:outputs] = weight_NK
    return rows.reshape(-1, PANEL_WIDTH, inputs).transpose(0, 2, 1).ravel()


@compiled
def add_product(x, x_at, x_stride, num_rows, depth, weights, at, width, out, out_at, out_stride):
    """Add rows of x times the panels at offset `at` of `weights` to rows of `out`; all flat.

    `width` is the number of outputs, padded.
    """
    num_panels = width // PANEL_WIDTH
    row = 0
    while row < num_rows:
        left = num_rows - row
        taken = 8 if left >= 8 else 4 if left >= 4 else 1
        _add_some(
            taken, x, x_at + row * x_stride, x_stride, depth,
            weights, at, num_panels, out, out_at + row * out_stride, out_stride,
        )  # fmt: skip
        row += taken


@compiled
def _add_some(num_rows, x, x_at, x_stride, depth, weights, at, num_panels, out, out_at, out_stride):
    """One, four or eight rows by as many panels at a time as fill the registers."""
    stride = depth * PANEL_WIDTH
    panel = 0
    while panel < num_panels:
        w_from, to, left = at + panel * stride, out_at + panel * PANEL_WIDTH, num_panels - panel
        if num_rows == 8:
            _eight_rows(x, x_at, x_stride, weights, w_from, stride, depth, out, to, out_stride)
            panel += 1
        elif num_rows == 4 and left >= 2:
            _four_rows(x, x_at, x_stride, weights, w_from, stride, depth, out, to, out_stride)
            panel += 2
        elif num_rows == 4:
            _four_rows_one_panel(
                x, x_at, x_stride, weights, w_from, stride, depth, out, to, out_stride
            )
            panel += 1
        elif left >= 4:
            _one_row(x, x_at, x_stride, weights, w_from, stride, depth, out, to, out_stride)
            panel += 4
        elif left >= 2:
            _one_row_two_panels(
                x, x_at, x_stride, weights, w_from, stride, depth, out, to, out_stride
            )
            panel += 2
        else:
            _one_row_one_panel(
                x, x_at, x_stride, weights, w_from, stride, depth, out, to, out_stride
            )
            panel += 1
