"""One step of an RNN, GRU or LSTM layer in one kernel: products, gates and the new state.

The columns of a unit's gates are adjacent, so that one program computes them all. The formulas are
those of `charlm_model.layers.recurrent_cells`.

Legend: R rows, U units, G columns of a unit.
"""

import triton
import triton.language as tl

from charlm_model.kernels.triton.elementary import sigmoid, tanh
from charlm_model.kernels.triton.matmul import add_product

RNN, GRU, LSTM = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def step_layer(
    inputs, before, after, cell, input_weights, hidden_weights, bias,
    INPUT_STRIDE: tl.constexpr, INPUT_SIZE: tl.constexpr,
    STRIDE: tl.constexpr, SIZE: tl.constexpr,
    KIND: tl.constexpr, GATES: tl.constexpr,
    ROWS: tl.constexpr, UNITS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute rows of the next hidden state (`after`) from those of the last one (`before`).

    Rows of states are STRIDE apart and SIZE long in this layer. Other programs read all of
    `before`, so `after` must not overlap it; the cell state is updated in place.
    """
    rows_R = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    COLUMNS: tl.constexpr = UNITS * GATES
    WIDTH: tl.constexpr = SIZE * GATES
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32) + tl.load(bias + columns)[None, :]
    sums = add_product(
        sums, inputs + rows_R * INPUT_STRIDE, input_weights, columns, INPUT_SIZE, WIDTH, DEPTH
    )
    sums = add_product(sums, before + rows_R * STRIDE, hidden_weights, columns, SIZE, WIDTH, DEPTH)
    units_U = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    places_RU = rows_R[:, None] * STRIDE + units_U[None, :]
    if KIND == RNN:
        tl.store(after + places_RU, tanh(sums))
    else:
        evens, odds = tl.split(tl.reshape(sums, (ROWS, UNITS, 2, 2)))
        first, third = tl.split(evens)
        second, fourth = tl.split(odds)
        if KIND == GRU:
            reset, update = sigmoid(first), sigmoid(second)
            new = tanh(tl.fma(reset, fourth, third))
            old = tl.load(before + places_RU)
            tl.store(after + places_RU, tl.fma(update, old - new, new))
        else:
            added = sigmoid(first) * tanh(third)
            kept = tl.fma(sigmoid(second), tl.load(cell + places_RU), added)
            tl.store(cell + places_RU, kept)
            tl.store(after + places_RU, sigmoid(fourth) * tanh(kept))
