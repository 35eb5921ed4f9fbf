"""Packs matrices into the panels that `bfloat16.add_panel` reads.

All arrays are flat. Widths are multiples of a vector; the padding of a panel is not written.

Legend: R rows, C columns of the matrix.
"""

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import LANES, load
from charlm_model.kernels.cpu_training.bfloat16 import (
    PANEL_WIDTH,
    copy_one,
    copy_pair,
    put_panel,
    store_bfloat16,
    store_interleaved,
)
from charlm_model.kernels.cpu_training.transpose import (
    BLOCK_SIZE,
    PAIR_BLOCK_SIZE,
    transpose_block,
    transpose_pair_block,
)


@compiled
def panels_of_rows(bfloat16s, num_rows, num_columns, panels):
    """Panels for x M^T of a bfloat16 matrix: outputs are rows, pairs are neighboring columns."""
    for top in range(0, num_rows, PAIR_BLOCK_SIZE):
        to = top // PANEL_WIDTH * num_columns * PANEL_WIDTH + top % PANEL_WIDTH * 2
        bottom = min(top + PAIR_BLOCK_SIZE, num_rows)
        for left in range(0, num_columns, 2 * PAIR_BLOCK_SIZE):
            right = min(left + 2 * PAIR_BLOCK_SIZE, num_columns)
            start, at = top * num_columns + left, to + left * PANEL_WIDTH
            if bottom - top == PAIR_BLOCK_SIZE and right - left == 2 * PAIR_BLOCK_SIZE:
                transpose_pair_block(bfloat16s, start, num_columns, panels, at, 2 * PANEL_WIDTH)
                continue
            for row in range(bottom - top):
                for column in range(0, right - left, 2):
                    copy_pair(
                        bfloat16s, start + row * num_columns + column,
                        panels, at + column * PANEL_WIDTH + 2 * row,
                    )  # fmt: skip


@compiled
def panels_of_columns(matrix, at, stride, num_rows, num_columns, depth, panels):
    """Panels for x M of float32 or bfloat16: outputs are columns, pairs are neighboring rows.

    The number of rows is even.
    """
    for column in range(0, num_columns, LANES):
        to = column // PANEL_WIDTH * depth * PANEL_WIDTH + column % PANEL_WIDTH * 2
        for row in range(0, num_rows, 2):
            start = at + row * stride + column
            store_interleaved(matrix, start, start + stride, panels, to + row * PANEL_WIDTH)


@compiled
def round_rows(matrix, at, stride, num_rows, num_columns, bfloat16s):
    """Round rows that are `stride` apart to contiguous bfloat16 rows."""
    for row in range(num_rows):
        for column in range(0, num_columns, LANES):
            store_bfloat16(
                bfloat16s, row * num_columns + column, load(matrix, at + row * stride + column)
            )


@compiled
def transpose(bfloat16s, at, stride, num_rows, num_columns, out, to, width):
    """Write the transpose in rows `width` apart."""
    for top in range(0, num_rows, BLOCK_SIZE):
        bottom = min(top + BLOCK_SIZE, num_rows)
        for left in range(0, num_columns, BLOCK_SIZE):
            right = min(left + BLOCK_SIZE, num_columns)
            if bottom - top == right - left == BLOCK_SIZE:
                block = at + top * stride + left
                transpose_block(bfloat16s, block, stride, out, to + left * width + top, width)
                continue
            for row in range(top, bottom):
                for column in range(left, right):
                    copy_one(bfloat16s, at + row * stride + column, out, to + column * width + row)


@compiled
def multiply_rows(x, x_at, x_stride, num_rows, depth, panels, width, out, out_at, out_stride):
    """out = rows of x times all panels of `width` outputs, padded."""
    for column in range(0, width, PANEL_WIDTH):
        put_panel(
            x, x_at, x_stride, num_rows, depth,
            panels, column * depth, out, out_at + column, out_stride,
        )  # fmt: skip
