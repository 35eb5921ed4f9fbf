"""y += x W^T, every output one chain of fused multiply-adds over its inputs, from the first on.

That is what oneDNN's packed products compute too, up to about a thousand inputs, at the same speed
(docs/decisions/0002).

Legend: M rows, K inputs, N outputs, P panels.
"""

import numpy as np
from numpy.typing import NDArray

from charlm_model.compiled.build import compiled
from charlm_model.compiled.tile import PANEL_WIDTH, tile

Floats = NDArray[np.float32]

_eight_rows = tile(8, 1)
_four_rows, _four_rows_one_panel = tile(4, 2), tile(4, 1)
_one_row, _one_row_one_panel = tile(1, 4), tile(1, 1)


def padded(width: int) -> int:
    """The number of columns that hold so many outputs: whole panels."""
    return -(-width // PANEL_WIDTH) * PANEL_WIDTH


def panels_of(weight_NK: Floats) -> Floats:
    """The weights as `add_product` reads them, flat: panel after panel, in each input by input."""
    outputs, inputs = weight_NK.shape
    rows = np.zeros((padded(outputs), inputs), np.float32)
    rows[:outputs] = weight_NK
    return rows.reshape(-1, PANEL_WIDTH, inputs).transpose(0, 2, 1).ravel()


@compiled
def add_product(x, x_at, x_stride, num_rows, depth, weights, at, width, out, out_at, out_stride):
    """Rows of x times the panels at a place of `weights`, added to rows of `out`; all flat.

    `width` is the number of outputs, padded.
    """
    stride = depth * PANEL_WIDTH
    num_panels = width // PANEL_WIDTH
    row = 0
    while row < num_rows:
        left = num_rows - row
        taken = 8 if left >= 8 else 4 if left >= 4 else 1
        x_from, out_from = x_at + row * x_stride, out_at + row * out_stride
        panel = 0
        while panel < num_panels:
            w_from, y_from = at + panel * stride, out_from + panel * PANEL_WIDTH
            if taken == 8:
                _eight_rows(
                    x, x_from, x_stride, weights, w_from, stride, depth, out, y_from, out_stride
                )
                panel += 1
            elif taken == 4 and panel + 2 <= num_panels:
                _four_rows(
                    x, x_from, x_stride, weights, w_from, stride, depth, out, y_from, out_stride
                )
                panel += 2
            elif taken == 4:
                _four_rows_one_panel(
                    x, x_from, x_stride, weights, w_from, stride, depth, out, y_from, out_stride
                )
                panel += 1
            elif panel + 4 <= num_panels:
                _one_row(
                    x, x_from, x_stride, weights, w_from, stride, depth, out, y_from, out_stride
                )
                panel += 4
            else:
                _one_row_one_panel(
                    x, x_from, x_stride, weights, w_from, stride, depth, out, y_from, out_stride
                )
                panel += 1
        row += taken
