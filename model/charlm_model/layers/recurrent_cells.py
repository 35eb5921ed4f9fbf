"""The recurrent cells written out: the oracle that the kernels are tested against.

A model runs in the kernels; tests, export and gradient diagnostics use these formulas. A cell takes
its input and hidden state already multiplied by its weights (`from_input`, `from_hidden`: gates
side by side, biases added) and returns the next state. Weights and gates have torch's layout.

Legend: B batch, H hidden, G gates times H.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Cell:
    """One family's step, and torch's fused module and function for the same layer."""

    state_names: tuple[str, ...]
    fused: Callable[..., nn.RNNBase]
    fused_layer: Callable[..., tuple[Tensor, ...]]
    step: Callable[[Tensor, Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def rnn_step(
    from_input_BG: Tensor, from_hidden_BG: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """h' = tanh(W x + U h + b).

    Source: Elman (1990).
    """
    return ((from_input_BG + from_hidden_BG).tanh(),)


def gru_step(
    from_input_BG: Tensor, from_hidden_BG: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """One step of a gated recurrent unit.

        r, z = sigmoid(W x + U h + b)        reset and update gates
        n    = tanh(W x + b + r * (U h + b'))  candidate
        h'   = (1 - z) * n + z * h

    Source: Cho et al. (2014), in the form of cuDNN, whose reset gate acts after the product.
    """
    (hidden_BH,) = state
    reset_x, update_x, new_x = from_input_BG.chunk(3, dim=-1)
    reset_h, update_h, new_h = from_hidden_BG.chunk(3, dim=-1)
    reset_BH = (reset_x + reset_h).sigmoid()
    update_BH = (update_x + update_h).sigmoid()
    new_BH = (new_x + reset_BH * new_h).tanh()
    return (new_BH + update_BH * (hidden_BH - new_BH),)


def lstm_step(
    from_input_BG: Tensor, from_hidden_BG: Tensor, state: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """One step of a long short-term memory.

        i, f, o = sigmoid(W x + U h + b)     input, forget and output gates
        g       = tanh(W x + U h + b)        candidate
        c'      = f * c + i * g              cell state
        h'      = o * tanh(c')               hidden state

    Source: Hochreiter & Schmidhuber (1997), forget gate from Gers et al. (2000).
    """
    _, cell_BH = state
    i, f, g, o = (from_input_BG + from_hidden_BG).chunk(4, dim=-1)
    cell_BH = f.sigmoid() * cell_BH + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell_BH.tanh(), cell_BH


CELLS: dict[str, Cell] = {
    "rnn": Cell(("hidden",), nn.RNN, torch.rnn_tanh, rnn_step),
    "gru": Cell(("hidden",), nn.GRU, torch.gru, gru_step),
    "lstm": Cell(("hidden", "cell"), nn.LSTM, torch.lstm, lstm_step),
}
