"""RNN, GRU and LSTM on a GPU: one kernel launch for each layer and token.

Legend: B rows, T tokens, L layers, H hidden, S slots of states.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.families.recurrent import RecurrentModel
from charlm_model.gpu.weights import (
    GpuEmbedding,
    GpuLinear,
    gpu_embedding,
    gpu_linear,
    side_by_side,
)
from charlm_model.gpu.workspace import GpuWorkspace
from charlm_model.kernels.triton.recurrent_cells import GRU, LSTM, RNN, step_layer
from charlm_model.kernels.triton.tiling import Tiling
from charlm_model.state import State

_KINDS = {"rnn": RNN.value, "gru": GRU.value, "lstm": LSTM.value}


@dataclass(frozen=True, slots=True)
class GpuRecurrentLayer:
    """Weights (K, units and their gates); the biases of both products are added."""

    input_weights: Tensor
    hidden_weights: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class GpuRecurrentWeights:
    """A model's sizes and weights in the layout of its kernels."""

    kind: int
    num_gates: int  # columns for each unit
    hidden_size: int
    padded_size: int
    embedding: GpuEmbedding
    layers: list[GpuRecurrentLayer]
    head: GpuLinear


def pack(model: RecurrentModel, device: torch.device) -> GpuRecurrentWeights:
    kind, head = _KINDS[model.config.family], gpu_linear(model.head, device)
    layers = [_layer(kind, weights, device) for weights in model.recurrent.all_weights]
    return GpuRecurrentWeights(
        kind=kind,
        num_gates=1 if kind == RNN.value else 4,
        hidden_size=model.config.hidden_size,
        padded_size=head.num_inputs,
        embedding=gpu_embedding(model.embedding, device),
        layers=layers,
        head=head,
    )


def _layer(kind: int, weights: Sequence[Tensor], device: torch.device) -> GpuRecurrentLayer:
    """From torch's order: input weights, hidden weights, then their biases, stacked by gate."""
    given = [each.detach().float() for each in weights]
    size = weights[1].shape[1]
    inputs, hiddens, input_biases, hidden_biases = (list(each.split(size)) for each in given)
    if kind == GRU.value:  # the candidate's two parts are not summed: each has a column
        inputs.append(torch.zeros_like(inputs[2]))
        hiddens.insert(2, torch.zeros_like(hiddens[2]))
        input_biases.append(torch.zeros_like(input_biases[2]))
        hidden_biases.insert(2, torch.zeros_like(hidden_biases[2]))
    biases = [a + b for a, b in zip(input_biases, hidden_biases, strict=True)]
    sides = [side_by_side(each).contiguous().to(device) for each in (inputs, hiddens, biases)]
    return GpuRecurrentLayer(*sides)


class RecurrentWorkspace(GpuWorkspace):
    """The states before and after a step are in different slots."""

    def __init__(
        self, packed: GpuRecurrentWeights, batch_size: int, tiling: Tiling, device: torch.device
    ) -> None:
        super().__init__(packed.embedding, packed.head, batch_size, tiling, device)
        self._packed = packed
        shape = self.num_rows, len(packed.layers), packed.padded_size
        self._hidden_SBLH = self._zeros(max(self.max_tokens, 2), *shape)
        self._cell_BLH = self._zeros(*shape)

    def _load(self, state: State, length: int) -> None:
        self._part(self._hidden_SBLH[_num_slots(length) - 1]).copy_(state["hidden"])
        if self._packed.kind == LSTM.value:
            self._part(self._cell_BLH).copy_(state["cell"])

    def _store(self, state: State, length: int, num_tokens: int) -> None:
        last = (num_tokens - 1) % _num_slots(length)
        state["hidden"].copy_(self._part(self._hidden_SBLH[last]))
        if self._packed.kind == LSTM.value:
            state["cell"].copy_(self._part(self._cell_BLH))

    def _part(self, padded_BLH: Tensor) -> Tensor:
        return padded_BLH[: self.batch_size, :, : self._packed.hidden_size]

    def _enqueue_layers(self, length: int, step: int) -> Tensor:
        x = self._x.view(self.max_tokens, self.num_rows, -1)
        num_slots = _num_slots(length)
        for t in range(length):
            after = (step + t) % num_slots
            inputs = x[t]
            for layer in range(len(self._packed.layers)):
                before_BH = self._hidden_SBLH[after - 1 if after else num_slots - 1, :, layer]
                after_BH = self._hidden_SBLH[after, :, layer]
                self._enqueue_layer(layer, inputs, before_BH, after_BH)
                inputs = after_BH
        return self._hidden_SBLH[step % num_slots, :, -1]

    def _enqueue_layer(
        self, layer: int, inputs: Tensor, before_BH: Tensor, after_BH: Tensor
    ) -> None:
        packed, weights = self._packed, self._packed.layers[layer]
        tile = self._tiling.of(self.num_rows)
        num_units = tile.columns // packed.num_gates
        step_layer[(self.num_rows // tile.rows, packed.padded_size // num_units)](
            inputs, before_BH, after_BH, self._cell_BLH[:, layer],
            weights.input_weights, weights.hidden_weights, weights.bias,
            INPUT_STRIDE=inputs.stride(0),
            INPUT_SIZE=weights.input_weights.shape[0],
            STRIDE=before_BH.stride(0),
            SIZE=packed.padded_size,
            KIND=packed.kind,
            GATES=packed.num_gates,
            ROWS=tile.rows,
            UNITS=num_units,
            DEPTH=tile.depth,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )  # fmt: skip


def _num_slots(length: int) -> int:
    """Slots for the states of successive steps; two at least, or a step overwrites its input."""
    return max(length, 2)
