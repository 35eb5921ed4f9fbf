"""What the layers with gates do alike in training, backward.

Legend: B rows, H hidden.
"""

from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import add, load, store
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH, add_panel, store_bfloat16


@compiled
def store_gate_gradient(value, row, step, at, width, stride, d_gates, scratch, d_bias):
    """What the loss gains by U of a step's sums: for the weights, for the step before, for biases.

    `scratch` holds the rows of one step, `stride` apart.
    """
    store_bfloat16(d_gates, step * width + at, value)
    store_bfloat16(scratch, row * stride + at, value)
    store(d_bias, row * width + at, add(load(d_bias, row * width + at), value))


@compiled
def add_hidden_gradient(num_rows, num_gates, H, weights, scratch, at, stride, d_hidden_BH):
    """From the gates of a step to the hidden state before it, to whose gradient it is added.

    `weights` are panels of the hidden weights, by what they multiply forward.
    """
    for column in range(0, H, PANEL_WIDTH):
        for gate in range(num_gates):  # a panel's part of one gate stays in the closest cache
            add_panel(
                scratch, at + gate * H, stride, num_rows, H,
                weights, (column * num_gates + gate * PANEL_WIDTH) * H,
                d_hidden_BH, column, H,
            )  # fmt: skip
