"""RNN, GRU and LSTM: our kernels run inference, and train GRU and LSTM where they can.

Legend: B batch, T time, V vocabulary, E embedding, H hidden, L layers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from charlm_model.config import ModelConfig
from charlm_model.families.kernel_model import KernelModel
from charlm_model.kernels.autograd.gru import gru_layer
from charlm_model.kernels.autograd.lstm import lstm_layer
from charlm_model.kernels.autograd.packing import supports_sizes
from charlm_model.kernels.cpu import recurrent as kernel
from charlm_model.layers.dropout import dropout
from charlm_model.layers.embedding import TokenEmbedding
from charlm_model.layers.mixed_precision import bfloat16_matmuls, has_bfloat16_kernels
from charlm_model.layers.recurrent_cells import CELLS
from charlm_model.state import State
from charlm_model.tensor_memory import zeros

# Layers that our training kernels implement.
_KERNEL_LAYERS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "gru": gru_layer,
    "lstm": lstm_layer,
}


class RecurrentModel(KernelModel):
    """h_t = f(h_{t-1}, x_t), and p(x_{t+1}) from h_t."""

    _kernel = kernel

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._cell = CELLS[config.family]
        self.embedding = TokenEmbedding(
            config.vocab_size,
            config.embedding_size,
            kernel_size=config.kernel_size,
            pair_rows=config.pair_rows,
        )
        self.recurrent = self._cell.fused(
            config.embedding_size,
            config.hidden_size,
            config.num_layers,
            batch_first=True,
        )
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        if (
            not self.head.weight.is_meta
        ):  # orthogonal shapes alone would make torch load its compiler
            self._initialize()

    def _initialize(self) -> None:
        """Orthogonal recurrent weights; a forget bias of 1, so that a fresh LSTM remembers.

        Source: Saxe et al. (2014); Jozefowicz et al. (2015).
        """
        H = self.config.hidden_size
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("weight_hh"):
                for gate_HH in parameter.data.split(H):
                    nn.init.orthogonal_(gate_HH)
            elif name.startswith("bias"):
                nn.init.zeros_(parameter)
                if self.config.family == "lstm" and name.startswith("bias_ih"):
                    nn.init.ones_(parameter.data[H : 2 * H])

    def initial_state(self, batch_size: int) -> State:
        shape = batch_size, self.config.num_layers, self.config.hidden_size
        names = self._cell.state_names
        carried = {name: zeros(shape, torch.float32, self.device) for name in names}
        return State({**carried, **self.embedding.initial_recent(batch_size)})

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        names = self._cell.state_names
        before = [state[name].transpose(0, 1).contiguous() for name in names]
        recent_BK = state.tensors.get("recent")
        x_BTE = self.embedding(ids_BT, recent_BK)
        y_BTH, after = self._run(x_BTE, before)
        carried = {
            name: tensor.float().transpose(0, 1) for name, tensor in zip(names, after, strict=True)
        }
        with bfloat16_matmuls(self.training, self.device):
            logits_BTV = self.head(self._drop(y_BTH))
        return logits_BTV.float(), State(
            {**carried, **self.embedding.recent_after(ids_BT, recent_BK)}
        )

    def _run(self, x_BTE: Tensor, before: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self._uses_kernels():
            return self._run_kernels(x_BTE, before)
        if self.training and self.device.type == "cuda":
            return self._run_layers(x_BTE.bfloat16(), [each.bfloat16() for each in before])
        with bfloat16_matmuls(self.training, self.device):
            return self._run_fused(x_BTE, before)

    def _uses_kernels(self) -> bool:
        """Whether the training kernels run: they need fast bfloat16 and whole panels."""
        config = self.config
        return (
            self.training
            and config.family in _KERNEL_LAYERS
            and has_bfloat16_kernels(self.device)
            and supports_sizes(config.embedding_size, config.hidden_size)
        )

    def _run_kernels(
        self, x_BTE: Tensor, before: list[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        layers_after, run_layer = [], _KERNEL_LAYERS[self.config.family]
        for layer, weights in enumerate(self.recurrent.all_weights):
            x_BTE = self._drop(x_BTE) if layer else x_BTE
            x_BTE, *after = run_layer(x_BTE, *(each[layer] for each in before), weights)
            layers_after.append(after)
        return x_BTE, tuple(map(torch.stack, zip(*layers_after, strict=True)))

    def _run_fused(self, x_BTE: Tensor, before: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers in one call, or one by one if there is dropout between them."""
        if not (self.training and self.config.dropout and self.config.num_layers > 1):
            y_BTH, after = self.recurrent(x_BTE, _torch_state(before))
            return y_BTH, after if len(before) > 1 else (after,)
        return self._run_layers(x_BTE, before)

    def _run_layers(self, x_BTE: Tensor, before: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Layer by layer, in the precision of the input."""
        layers_after = []
        for layer, layer_weights in enumerate(self.recurrent.all_weights):
            x_BTE = self._drop(x_BTE) if layer else x_BTE
            state = _torch_state([tensor[layer : layer + 1] for tensor in before])
            weights = [each.to(x_BTE.dtype) for each in layer_weights]
            x_BTE, *layer_after = self._cell.fused_layer(
                x_BTE, state, weights, True, 1, 0.0, True, False, True
            )
            layers_after.append(layer_after)
        return x_BTE, tuple(map(torch.cat, zip(*layers_after, strict=True)))

    def _drop(self, x_BTH: Tensor) -> Tensor:
        return dropout(x_BTH, self.config.dropout, self.training)

    def _pack(self) -> kernel.PackedRecurrent:
        return kernel.pack(self.config.family, self.embedding, self.recurrent, self.head)

    def _carried(self, state: State) -> list[Tensor]:
        """Hidden and cell state; kernels of RNN and GRU take a second tensor but do not read it."""
        return [state["hidden"], state[self._cell.state_names[-1]]]

    def _after(self, carried: list[Tensor], state: State) -> dict[str, Tensor]:
        return dict(zip(self._cell.state_names, carried, strict=False))


def _torch_state(state: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """The state as torch takes it: a tuple for an LSTM, else a tensor."""
    return tuple(state) if len(state) > 1 else state[0]
