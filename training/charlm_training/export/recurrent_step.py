"""One step of an RNN, GRU or LSTM as a plain graph. B batch, L layers, H hidden, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from charlm_model.families.recurrent import RecurrentModel
from charlm_model.layers.recurrent_cells import CELLS


class RecurrentStep(nn.Module):
    """ids (B,), each state (B, L, H) and recent ids (B, K), if any.

    Gives logits (B, V) and the same after the step.
    """

    def __init__(self, model: RecurrentModel) -> None:
        super().__init__()
        self._cell = CELLS[model.config.family].step
        self._num_layers = model.config.num_layers
        self._num_carried = len(CELLS[model.config.family].state_names)
        self.state_names = tuple(model.initial_state(1).tensors)
        self.embedding, self.head = model.embedding, model.head
        self.weights = nn.ParameterDict(dict(model.recurrent.named_parameters()))

    def forward(self, ids_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        carried, recent = state[: self._num_carried], state[self._num_carried :]
        ids_B1 = ids_B[:, None]
        input_BH = self.embedding(ids_B1, *recent)[:, 0]
        layers = []
        for layer in range(self._num_layers):
            before = tuple(each_BLH[:, layer] for each_BLH in carried)
            from_input_BG = self._linear(input_BH, "ih", layer)
            after = self._cell(from_input_BG, self._linear(before[0], "hh", layer), before)
            layers.append(after)
            input_BH = after[0]
        after_BLH = [torch.stack(each, 1) for each in zip(*layers, strict=True)]
        remembered = self.embedding.recent_after(ids_B1, *recent) if recent else {}
        return self.head(input_BH), *after_BLH, *remembered.values()

    def _linear(self, x_BH: Tensor, side: str, layer: int) -> Tensor:
        weights = self.weights
        return linear(x_BH, weights[f"weight_{side}_l{layer}"], weights[f"bias_{side}_l{layer}"])
