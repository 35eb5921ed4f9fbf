"""The orthogonalization of a matrix by quintics, in bfloat16 products, for training.

Products of a matrix with its own transpose are symmetric: half of each is computed.

Legend: M rows, N columns; R the shorter side, C the longer one.
"""

import numpy as np

from charlm_model.compiled.build import compiled
from charlm_model.compiled.functions import lane_sum
from charlm_model.compiled.halves import PANEL_WIDTH, move_half, put_panel, store_halves
from charlm_model.compiled.halves_layout import (
    halves_of,
    multiply_rows,
    panels_of_columns,
    panels_of_rows,
)
from charlm_model.compiled.vectors import LANES, fma, load, load_halves, multiply, splat, store

_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
def orthogonalize(sizes, blocks_GMN, quintics, safety, tiny):
    """Every block X, in place: X / (its norm * safety + tiny), then aX + (bG + cGG) X, G = X X^T.

    M and N are multiples of PANEL_WIDTH; each quintic is (a, b, c).
    """
    num_blocks, M, N = sizes
    R, C = min(M, N), max(M, N)
    x, product = np.empty(R * C, np.float32), np.empty(R * C, np.float32)
    halves, panels = np.empty(R * C, np.int16), np.empty(R * C, np.int16)
    gram, polynomial = np.empty(R * R, np.int16), np.empty(R * R, np.int16)
    for block in range(num_blocks):
        start = block * M * N
        scale = _ONE / (_norm(blocks_GMN, start, M * N) * safety + tiny)
        _bring(blocks_GMN, start, M, N, scale, x)
        for quintic in quintics:
            a, b, c = quintic[0], quintic[1], quintic[2]
            halves_of(x, 0, C, R, C, halves)
            panels_of_rows(halves, R, C, panels)
            _put_lower(halves, R, C, panels, product)
            _round_lower(product, R, _ZERO, _ONE, gram, gram)
            panels_of_rows(gram, R, R, panels)
            _put_lower(gram, R, R, panels, product)
            _round_lower(product, R, b, c, gram, polynomial)
            panels_of_columns(x, 0, C, R, C, R, panels)
            multiply_rows(polynomial, 0, R, R, R, panels, C, product, 0, C)
            for n in range(0, R * C, LANES):
                store(x, n, fma(splat(a), load(x, n), load(product, n)))
        _give(x, M, N, blocks_GMN, start)


@compiled
def _norm(values, at, num):
    squares = splat(_ZERO)
    for n in range(at, at + num, LANES):
        squares = fma(load(values, n), load(values, n), squares)
    return np.sqrt(lane_sum(squares))


@compiled
def _bring(blocks, start, M, N, scale, x):
    """A block, scaled, on its side if it is tall."""
    if M <= N:
        for n in range(0, M * N, LANES):
            store(x, n, multiply(splat(scale), load(blocks, start + n)))
    else:
        for m in range(M):
            for n in range(N):
                x[n * M + m] = scale * blocks[start + m * N + n]


@compiled
def _give(x, M, N, blocks, start):
    if M <= N:
        for n in range(0, M * N, LANES):
            store(blocks, start + n, load(x, n))
    else:
        for m in range(M):
            for n in range(N):
                blocks[start + m * N + n] = x[n * M + m]


@compiled
def _put_lower(halves, R, depth, panels, out):
    """The part below the diagonal, in rows of R."""
    for column in range(0, R, PANEL_WIDTH):
        put_panel(
            halves, column * depth, depth, R - column, depth,
            panels, column * depth, out, column * R + column, R,
        )  # fmt: skip


@compiled
def _round_lower(product, R, of_gram, of_product, gram, out):
    """A multiple of the gram and one of the product, symmetric again."""
    for row in range(R):
        for column in range(0, row + 1, LANES):
            value = multiply(splat(of_product), load(product, row * R + column))
            if of_gram != _ZERO:
                value = fma(splat(of_gram), load_halves(gram, row * R + column), value)
            store_halves(out, row * R + column, value)
    # Block by block, or every number would be written into another line of the cache.
    for top in range(0, R, PANEL_WIDTH):
        for left in range(0, top + 1, PANEL_WIDTH):
            for row in range(top, top + PANEL_WIDTH):
                for column in range(left, min(left + PANEL_WIDTH, row)):
                    move_half(out, row * R + column, out, column * R + row)
