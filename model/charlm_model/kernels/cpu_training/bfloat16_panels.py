"""Matrices that change from row to row, brought into the panels that `halves.add_panel` reads.

All flat. Widths are multiples of a vector's; what a panel has beyond a matrix is left as it was.

Legend: R rows, C columns of the matrix.
"""

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import LANES, load
from charlm_model.kernels.cpu_training.bfloat16 import (
    PANEL_WIDTH,
    move_half,
    move_pair,
    put_panel,
    store_halves,
    store_pairs,
)
from charlm_model.kernels.cpu_training.transpose import (
    HALVES_TURNED,
    PAIRS_TURNED,
    turn_halves,
    turn_pairs,
)


@compiled
def panels_of_rows(halves, num_rows, num_columns, panels):
    """For x M^T, of a bfloat16 matrix: outputs are rows; pairs are neighboring columns."""
    for top in range(0, num_rows, PAIRS_TURNED):
        to = top // PANEL_WIDTH * num_columns * PANEL_WIDTH + top % PANEL_WIDTH * 2
        bottom = min(top + PAIRS_TURNED, num_rows)
        for left in range(0, num_columns, 2 * PAIRS_TURNED):
            right = min(left + 2 * PAIRS_TURNED, num_columns)
            start, at = top * num_columns + left, to + left * PANEL_WIDTH
            if bottom - top == PAIRS_TURNED and right - left == 2 * PAIRS_TURNED:
                turn_pairs(halves, start, num_columns, panels, at, 2 * PANEL_WIDTH)
                continue
            for row in range(bottom - top):
                for column in range(0, right - left, 2):
                    move_pair(
                        halves, start + row * num_columns + column,
                        panels, at + column * PANEL_WIDTH + 2 * row,
                    )  # fmt: skip


@compiled
def panels_of_columns(matrix, at, stride, num_rows, num_columns, depth, panels):
    """For x M, of float32 or bfloat16: outputs are columns; pairs are neighboring rows.

    The number of rows is even.
    """
    for column in range(0, num_columns, LANES):
        to = column // PANEL_WIDTH * depth * PANEL_WIDTH + column % PANEL_WIDTH * 2
        for row in range(0, num_rows, 2):
            start = at + row * stride + column
            store_pairs(matrix, start, start + stride, panels, to + row * PANEL_WIDTH)


@compiled
def halves_of(matrix, at, stride, num_rows, num_columns, halves):
    """Rows, rounded, without what lies between them."""
    for row in range(num_rows):
        for column in range(0, num_columns, LANES):
            store_halves(
                halves, row * num_columns + column, load(matrix, at + row * stride + column)
            )


@compiled
def turn(halves, at, stride, num_rows, num_columns, out, to, width):
    """The transpose, in rows of `width`."""
    for top in range(0, num_rows, HALVES_TURNED):
        bottom = min(top + HALVES_TURNED, num_rows)
        for left in range(0, num_columns, HALVES_TURNED):
            right = min(left + HALVES_TURNED, num_columns)
            if bottom - top == right - left == HALVES_TURNED:
                block = at + top * stride + left
                turn_halves(halves, block, stride, out, to + left * width + top, width)
                continue
            for row in range(top, bottom):
                for column in range(left, right):
                    move_half(halves, at + row * stride + column, out, to + column * width + row)


@compiled
def multiply_rows(x, x_at, x_stride, num_rows, depth, panels, width, out, out_at, out_stride):
    """out = rows of x times all panels of `width` outputs, padded."""
    for column in range(0, width, PANEL_WIDTH):
        put_panel(
            x, x_at, x_stride, num_rows, depth,
            panels, column * depth, out, out_at + column, out_stride,
        )  # fmt: skip
