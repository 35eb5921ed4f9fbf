"""A GRU layer in training: a whole window in one call, forward and backward, in bfloat16.

Arrays are laid out as in `lstm`. A step has four sums, in this order: the candidate's input part,
reset gate, update gate, the candidate's hidden part. So the sums that involve the input are
adjacent, and so are those that involve the hidden state.

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

SUMS = 4
_ONE = np.float32(1)


@compiled
def forward(sizes, x, from_input, from_hidden, bias, hidden_BH, sums_BTS, y):
    """Reads x (B, T, E); writes y (B, T, H), and for `backward` the sums of each step.

    `hidden_BH` becomes the last state. Gates are stored after their activations. `from_input` holds
    panels for candidate, reset and update; `from_hidden` for reset, update and candidate; `bias`
    belongs to all four sums.
    """
    num_rows, length, E, H = sizes
    half_BH = np.empty(num_rows * H, np.int16)
    sums = np.empty(num_rows * SUMS * PANEL_WIDTH, np.float32)
    for t in range(length):
        for at in range(0, num_rows * H, LANES):
            store_bfloat16(half_BH, at, load(hidden_BH, at))
        for unit in range(0, H, PANEL_WIDTH):
            _sum_gates(
                num_rows, length, t, E, H, x, half_BH, from_input, from_hidden, bias, unit, sums
            )
            for row in range(num_rows):
                for part in range(0, PANEL_WIDTH, LANES):
                    _update_state(
                        row * length + t, H, unit + part, sums, row, part, hidden_BH, sums_BTS, y
                    )


@compiled
def _sum_gates(num_rows, length, t, E, H, x, half_BH, from_input, from_hidden, bias, unit, sums):
    """The four sums of a panel of units, for every row."""
    stride = SUMS * PANEL_WIDTH
    for row in range(num_rows):
        for kind in range(SUMS):
            for part in range(0, PANEL_WIDTH, LANES):
                to = row * stride + kind * PANEL_WIDTH + part
                store(sums, to, load(bias, kind * H + unit + part))
    for kind in range(SUMS - 1):
        add_panel(
            x, t * E, length * E, num_rows, E,
            from_input, (kind * H + unit) * E, sums, kind * PANEL_WIDTH, stride,
        )  # fmt: skip
        add_panel(
            half_BH, 0, H, num_rows, H,
            from_hidden, (kind * H + unit) * H, sums, (kind + 1) * PANEL_WIDTH, stride,
        )  # fmt: skip


@compiled
def _update_state(step, H, unit, sums, row, part, hidden_BH, sums_BTS, y):
    """Compute one row's new hidden state of U units."""
    at, kept, own = row * SUMS * PANEL_WIDTH + part, step * SUMS * H + unit, row * H + unit
    r = sigmoid(load(sums, at + PANEL_WIDTH))
    z = sigmoid(load(sums, at + 2 * PANEL_WIDTH))
    from_hidden = load(sums, at + 3 * PANEL_WIDTH)
    n = tanh(fma(r, from_hidden, load(sums, at)))
    hidden = fma(z, subtract(load(hidden_BH, own), n), n)
    store(sums_BTS, kept, n)
    store(sums_BTS, kept + H, r)
    store(sums_BTS, kept + 2 * H, z)
    store(sums_BTS, kept + 3 * H, from_hidden)
    store(hidden_BH, own, hidden)
    store_bfloat16(y, step * H + unit, hidden)


@compiled
def backward(sizes, weights, hidden_BH, sums_BTS, y, dy, d_hidden_BH, d_sums, d_bias):
    """Reads dy (B, T, H); writes the gradient of every sum (B, T, 4 H).

    The gradient of the last state becomes that of the first one; `d_bias` (B, 4 H) is added to.
    `weights` are backward panels of the hidden weights.
    """
    num_rows, length, _, H = sizes
    width = SUMS * H
    stride = width + LANES  # padded, or all rows would map to the same cache sets
    scratch = np.empty(num_rows * stride, np.int16)
    one = splat(_ONE)
    for t in range(length - 1, -1, -1):
        for row in range(num_rows):
            step = row * length + t
            for unit in range(0, H, LANES):
                kept, at = step * width + unit, row * H + unit
                n, r = load(sums_BTS, kept), load(sums_BTS, kept + H)
                z, from_hidden = load(sums_BTS, kept + 2 * H), load(sums_BTS, kept + 3 * H)
                before = load_bfloat16(y, (step - 1) * H + unit) if t else load(hidden_BH, at)
                d_hidden = add(load(d_hidden_BH, at), load_bfloat16(dy, step * H + unit))
                d_kept = multiply(d_hidden, z)
                store(d_hidden_BH, at, d_kept)
                d_n = multiply(subtract(d_hidden, d_kept), subtract(one, multiply(n, n)))
                d_r = multiply(multiply(d_n, from_hidden), multiply(r, subtract(one, r)))
                d_z = multiply(multiply(d_kept, subtract(before, n)), subtract(one, z))
                store_gate_gradient(d_n, row, step, unit, width, stride, d_sums, scratch, d_bias)
                store_gate_gradient(
                    d_r, row, step, H + unit, width, stride, d_sums, scratch, d_bias
                )
                store_gate_gradient(
                    d_z, row, step, 2 * H + unit, width, stride, d_sums, scratch, d_bias
                )
                d_from_hidden = multiply(d_n, r)
                store_gate_gradient(
                    d_from_hidden, row, step, 3 * H + unit, width, stride, d_sums, scratch, d_bias
                )
        add_hidden_gradient(num_rows, SUMS - 1, H, weights, scratch, H, stride, d_hidden_BH)
