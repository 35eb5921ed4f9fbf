"""An LSTM layer in training: a whole window in one call, forward and backward, in bfloat16.

Rows are independent, so threads split them and need not synchronize within a window. All arrays are
flat, row after row; bfloat16 is stored as int16.

Legend: B rows, T time, E inputs, H hidden, U units that fill a vector.
"""

import numpy as np

from charlm_model.kernels.cpu.elementary import sigmoid, tanh
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import (
    LANES,
    add,
    fma,
    load,
    load_bfloat16,
    multiply,
    splat,
    store,
    subtract,
)
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH, add_panel, store_bfloat16
from charlm_model.kernels.cpu_training.gates import add_hidden_gradient, store_gate_gradient

GATES = 4
_ONE, _ZERO = np.float32(1), np.float32(0)


@compiled
def forward(sizes, x, weights, bias, hidden_BH, cell_BH, gates, cells, y):
    """Reads x (B, T, E); writes y (B, T, H), and for `backward` the gates and cells of each step.

    `weights` are panels of input and hidden weights side by side: input and forget gate of U units
    in one panel, candidate and output gate in the next. The gates of a step have the same order.
    """
    num_rows, length, E, H = sizes
    depth = E + H
    both = np.zeros(2 * num_rows * depth, np.int16)  # input and hidden state of two steps
    sums = np.empty(num_rows * GATES * LANES, np.float32)
    for row in range(num_rows):
        for h in range(0, H, LANES):
            store_bfloat16(both, row * depth + E + h, load(hidden_BH, row * H + h))
    for t in range(length):
        now, later = (t % 2) * num_rows * depth, (1 - t % 2) * num_rows * depth
        for row in range(num_rows):
            for e in range(E):
                both[now + row * depth + e] = x[(row * length + t) * E + e]
        for unit in range(0, H, LANES):
            _sum_gates(num_rows, depth, both, now, weights, bias, unit, sums)
            for row in range(num_rows):
                step, at = row * length + t, row * H + unit
                before = load(cells, (step - 1) * H + unit) if t else load(cell_BH, at)
                hidden = _update_state(step, H, unit, before, sums, row, gates, cells)
                store_bfloat16(y, step * H + unit, hidden)
                store_bfloat16(both, later + row * depth + E + unit, hidden)


@compiled
def _sum_gates(num_rows, depth, both, now, weights, bias, unit, sums):
    """The four gates of U units, before their activations, for every row."""
    for row in range(num_rows):
        for gate in range(0, GATES * LANES, LANES):
            store(sums, row * GATES * LANES + gate, load(bias, unit * GATES + gate))
    for panel in range(0, GATES * LANES, PANEL_WIDTH):
        add_panel(
            both, now, depth, num_rows, depth,
            weights, (unit * GATES + panel) * depth, sums, panel, GATES * LANES,
        )  # fmt: skip


@compiled
def _update_state(step, H, unit, before, sums, row, gates, cells):
    """Compute one row's new hidden state of U units."""
    at, kept = row * GATES * LANES, (step * H + unit) * GATES
    i, f = sigmoid(load(sums, at)), sigmoid(load(sums, at + LANES))
    g, o = tanh(load(sums, at + 2 * LANES)), sigmoid(load(sums, at + 3 * LANES))
    cell = fma(f, before, multiply(i, g))
    store(gates, kept, i)
    store(gates, kept + LANES, f)
    store(gates, kept + 2 * LANES, g)
    store(gates, kept + 3 * LANES, o)
    store(cells, step * H + unit, cell)
    return multiply(o, tanh(cell))


@compiled
def backward(sizes, weights, cell_BH, gates, cells, dy, d_hidden_BH, d_cell_BH, d_gates, d_bias):
    """Reads dy (B, T, H); writes the gradient of every gate's sum (B, T, 4 H).

    The gradients of the last state become those of the first one; `d_bias` (B, 4 H) is added to.
    `weights` are backward panels of the hidden weights.
    """
    num_rows, length, _, H = sizes
    width = GATES * H
    stride = width + LANES  # padded, or all rows would map to the same cache sets
    scratch = np.empty(num_rows * stride, np.int16)
    one = splat(_ONE)
    for t in range(length - 1, -1, -1):
        for row in range(num_rows):
            step = row * length + t
            for unit in range(0, H, LANES):
                kept, at = step * width + unit * GATES, row * H + unit
                i, f = load(gates, kept), load(gates, kept + LANES)
                g, o = load(gates, kept + 2 * LANES), load(gates, kept + 3 * LANES)
                before = load(cells, (step - 1) * H + unit) if t else load(cell_BH, at)
                tanh_cell = tanh(load(cells, step * H + unit))
                d_hidden = add(load(d_hidden_BH, at), load_bfloat16(dy, step * H + unit))
                d_tanh_cell = multiply(d_hidden, o)
                d_cell = load(d_cell_BH, at)
                d_cell = add(
                    d_cell, multiply(d_tanh_cell, subtract(one, multiply(tanh_cell, tanh_cell)))
                )
                d_i = multiply(multiply(d_cell, g), multiply(i, subtract(one, i)))
                d_f = multiply(multiply(d_cell, before), multiply(f, subtract(one, f)))
                d_g = multiply(multiply(d_cell, i), subtract(one, multiply(g, g)))
                d_o = multiply(multiply(d_hidden, tanh_cell), multiply(o, subtract(one, o)))
                store(d_cell_BH, at, multiply(d_cell, f))
                store_gate_gradient(d_i, row, step, unit, width, stride, d_gates, scratch, d_bias)
                store_gate_gradient(
                    d_f, row, step, H + unit, width, stride, d_gates, scratch, d_bias
                )
                store_gate_gradient(
                    d_g, row, step, 2 * H + unit, width, stride, d_gates, scratch, d_bias
                )
                store_gate_gradient(
                    d_o, row, step, 3 * H + unit, width, stride, d_gates, scratch, d_bias
                )
        d_hidden_BH[:] = _ZERO
        add_hidden_gradient(num_rows, GATES, H, weights, scratch, 0, stride, d_hidden_BH)
