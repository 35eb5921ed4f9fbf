"""Muon's update of a matrix: orthogonalized by quintic iterations in bfloat16.

The product of a matrix with its own transpose is symmetric: only one half is computed.

Legend: M rows, N columns; R the shorter side, C the longer one.
"""

from typing import NamedTuple

import numpy as np

from charlm_model.kernels.cpu.elementary import lane_sum
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    fma,
    load,
    load_bfloat16,
    multiply,
    splat,
    store,
    subtract,
)
from charlm_model.kernels.cpu_training.bfloat16 import (
    PANEL_WIDTH,
    copy_one,
    put_panel,
    store_bfloat16,
)
from charlm_model.kernels.cpu_training.bfloat16_panels import (
    multiply_rows,
    panels_of_columns,
    panels_of_rows,
    round_rows,
    transpose,
)

_ZERO, _ONE = np.float32(0), np.float32(1)


class Factors(NamedTuple):
    """The scalars of one update of one matrix."""

    momentum: np.float32
    safety: np.float32  # the norm becomes 1 / safety
    tiny: np.float32
    shrink: np.float32  # factor of a weight: weight decay
    rate: np.float32


@compiled
def step(sizes, start, weight, gradient, momentum, quintics, factors):
    """Update one block of a stacked matrix, from offset `start` on; the three arrays are flat.

    M and N are multiples of PANEL_WIDTH; each quintic is (a, b, c).
    """
    M, N = sizes
    R, C = min(M, N), max(M, N)
    x, product = np.empty(R * C, np.float32), np.empty(R * C, np.float32)
    norm = _nesterov_momentum(gradient, momentum, start, M * N, factors.momentum, product)
    _load_scaled(product, M, N, _ONE / (norm * factors.safety + factors.tiny), x)
    orthogonalize(R, C, quintics, x, product)
    _update_weights(x, M, N, factors.shrink, factors.rate, weight, start)


@compiled
def orthogonalize(R, C, quintics, x, product):
    """X <- aX + (bG + cGG) X with G = X X^T, for every quintic; `product` is a buffer."""
    bfloat16s, panels = np.empty(R * C, np.int16), np.empty(R * C, np.int16)
    gram, polynomial = np.empty(R * R, np.int16), np.empty(R * R, np.int16)
    for quintic in quintics:
        a, b, c = quintic[0], quintic[1], quintic[2]
        round_rows(x, 0, C, R, C, bfloat16s)
        panels_of_rows(bfloat16s, R, C, panels)
        _put_lower(bfloat16s, R, C, panels, product)
        _round_lower(product, R, _ZERO, _ONE, gram, gram)
        panels_of_rows(gram, R, R, panels)
        _put_lower(gram, R, R, panels, product)
        _round_lower(product, R, b, c, gram, polynomial)
        panels_of_columns(x, 0, C, R, C, R, panels)
        multiply_rows(polynomial, 0, R, R, R, panels, C, product, 0, C)
        for n in range(0, R * C, LANES):
            store(x, n, fma(splat(a), load(x, n), load(product, n)))


@compiled
def _nesterov_momentum(gradient, momentum, start, num, factor, ahead):
    """Update the momentum, write the Nesterov momentum to `ahead`, and return its norm."""
    kept, taken, squares = splat(factor), splat(_ONE - factor), splat(_ZERO)
    for n in range(0, num, LANES):
        slope, old = load(gradient, start + n), load(momentum, start + n)
        new = fma(taken, subtract(slope, old), old)
        there = fma(kept, subtract(new, slope), slope)
        store(momentum, start + n, new)
        store(ahead, n, there)
        squares = fma(there, there, squares)
    return np.sqrt(lane_sum(squares))


@compiled
def _load_scaled(block, M, N, scale, x):
    """Copy a block to x, scaled; transposed if it is taller than wide."""
    if M <= N:
        for n in range(0, M * N, LANES):
            store(x, n, multiply(splat(scale), load(block, n)))
    else:
        for m in range(M):
            for n in range(N):
                x[n * M + m] = scale * block[m * N + n]


@compiled
def _update_weights(x, M, N, shrink, rate, weight, start):
    """weight <- shrink * weight - rate * x."""
    if M <= N:
        for n in range(0, M * N, LANES):
            shrunk = multiply(splat(shrink), load(weight, start + n))
            store(weight, start + n, fma(splat(-rate), load(x, n), shrunk))
    else:
        for m in range(M):
            for n in range(N):
                at = start + m * N + n
                weight[at] = shrink * weight[at] - rate * x[n * M + m]


@compiled
def _put_lower(bfloat16s, R, depth, panels, out):
    """The products on and below the diagonal, by panels of columns."""
    for column in range(0, R, PANEL_WIDTH):
        put_panel(
            bfloat16s, column * depth, depth, R - column, depth,
            panels, column * depth, out, column * R + column, R,
        )  # fmt: skip


@compiled
def _round_lower(product, R, of_gram, of_product, gram, out):
    """of_gram * gram + of_product * product in bfloat16, with the upper half mirrored."""
    for row in range(R):
        for column in range(0, row + 1, LANES):
            value = multiply(splat(of_product), load(product, row * R + column))
            if of_gram != _ZERO:
                value = fma(splat(of_gram), load_bfloat16(gram, row * R + column), value)
            store_bfloat16(out, row * R + column, value)
    for top in range(0, R, PANEL_WIDTH):
        transpose(out, top * R, R, PANEL_WIDTH, top, out, top, R)
        for row in range(top, top + PANEL_WIDTH):
            for column in range(top, row):
                copy_one(out, row * R + column, out, column * R + row)
