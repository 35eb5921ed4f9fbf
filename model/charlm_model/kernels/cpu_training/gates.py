"""The parts of the backward pass that LSTM and GRU share.

Legend: B rows, H hidden.
"""

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import add, load, store
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH, add_panel, store_bfloat16


@compiled
def store_gate_gradient(value, row, step, at, width, stride, d_gates, scratch, d_bias):
    """Store the gradient of U gate sums, for the weights, the step before, and the biases.

    `scratch` holds the rows of one step, `stride` apart.
    """
    store_bfloat16(d_gates, step * width + at, value)
    store_bfloat16(scratch, row * stride + at, value)
    store(d_bias, row * width + at, add(load(d_bias, row * width + at), value))


@compiled
def add_hidden_gradient(num_rows, num_gates, H, weights, scratch, at, stride, d_hidden_BH):
    """Add the gradient of a step's gates to that of the hidden state before it.

    `weights` are backward panels of the hidden weights.
    """
    for column in range(0, H, PANEL_WIDTH):
        for gate in range(num_gates):  # a panel's part of one gate fits the L1 cache
            add_panel(
                scratch, at + gate * H, stride, num_rows, H,
                weights, (column * num_gates + gate * PANEL_WIDTH) * H,
                d_hidden_BH, column, H,
            )  # fmt: skip
