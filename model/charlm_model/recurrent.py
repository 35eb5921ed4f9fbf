"""RNN, GRU and LSTM: fused kernels train them, the written-out cells serve them.

Legend: B batch, T time, V vocabulary, E embedding, H hidden, L layers, G gates times H.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charlm_model.cells import CELLS
from charlm_model.config import ModelConfig
from charlm_model.dropout import dropout
from charlm_model.embedding import TokenEmbedding
from charlm_model.exact import PackedLinear, pad_rows, row_multiple
from charlm_model.language_model import LanguageModel
from charlm_model.precision import half_products
from charlm_model.state import State


@dataclass(frozen=True, slots=True)
class _ExactWeights:
    """The weights as the exact path wants them."""

    first_inputs_VG: Tensor  # what a token alone contributes to the first layer's gates
    from_input: list[PackedLinear]
    from_hidden: list[PackedLinear]
    head: PackedLinear


class RecurrentModel(LanguageModel):
    """h_t = f(h_{t-1}, x_t), and p(x_{t+1}) from h_t."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._cell = CELLS[config.family]
        self._exact: _ExactWeights | None = None
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
            dropout=config.dropout if config.num_layers > 1 else 0.0,
        )
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
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
        carried = {name: torch.zeros(shape) for name in self._cell.state_names}
        return State({**carried, **self.embedding.no_recent(batch_size)})

    def train(self, mode: bool = True) -> "RecurrentModel":
        self._exact = None  # the weights may change before the exact path is next asked
        super().train(mode)
        return self

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        names = self._cell.state_names
        before = [state[name].transpose(0, 1).contiguous() for name in names]
        recent_BK = state.tensors.get("recent")
        x_BTE = self.embedding(ids_BT, recent_BK)
        with half_products(self.training):
            y_BTH, after = self.recurrent(x_BTE, tuple(before) if len(names) > 1 else before[0])
        y_BTH = dropout(y_BTH.float(), self.config.dropout, self.training)
        tensors = after if len(names) > 1 else (after,)
        carried = {
            name: tensor.float().transpose(0, 1)
            for name, tensor in zip(names, tensors, strict=True)
        }
        return self.head(y_BTH), State({**carried, **self.embedding.remember(ids_BT, recent_BK)})

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        weights = self._exact_weights()
        num_rows = len(ids_BT)
        multiple = row_multiple(self.config.hidden_size)
        recent_BK = state.tensors.get("recent")
        from_input_TBG = self._first_gates(ids_BT, recent_BK, multiple)
        tensors = [pad_rows(state[name], multiple).unbind(1) for name in self._cell.state_names]
        layers_after = []
        for layer, from_hidden in enumerate(weights.from_hidden):
            before = tuple(tensor[layer] for tensor in tensors)
            hidden_TBH, layer_after = self._run_layer(from_input_TBG, from_hidden, before)
            layers_after.append(layer_after)
            if layer + 1 < len(weights.from_input):
                from_input_TBG = weights.from_input[layer + 1](hidden_TBH)
        logits_TBV = weights.head(hidden_TBH)
        names_and_layers = zip(self._cell.state_names, zip(*layers_after, strict=True), strict=True)
        carried = {name: torch.stack(layers, 1)[:num_rows] for name, layers in names_and_layers}
        after = State({**carried, **self.embedding.remember(ids_BT, recent_BK)})
        return logits_TBV.transpose(0, 1)[:num_rows], after

    def _first_gates(self, ids_BT: Tensor, recent_BK: Tensor | None, multiple: int) -> Tensor:
        """The first layer's gates without the state's part (T, B, G): a look-up where it can be."""
        weights, ids_TB = self._exact_weights(), pad_rows(ids_BT, multiple).T
        if recent_BK is None:
            return weights.first_inputs_VG[ids_TB]
        x_BTE = self.embedding(ids_TB.T, pad_rows(recent_BK, multiple))
        return weights.from_input[0](x_BTE.transpose(0, 1).contiguous())

    def _run_layer(
        self, from_input_TBG: Tensor, from_hidden: PackedLinear, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden = []
        for from_input_BG in from_input_TBG:
            state = self._cell.step(from_input_BG, from_hidden(state[0]), state)
            hidden.append(state[0])
        return torch.stack(hidden), state

    def _exact_weights(self) -> _ExactWeights:
        if self._exact is None:
            layers = range(self.config.num_layers)
            from_input = [self._packed("ih", layer) for layer in layers]
            self._exact = _ExactWeights(
                first_inputs_VG=from_input[0](self.embedding.weight.detach()),
                from_input=from_input,
                from_hidden=[self._packed("hh", layer) for layer in layers],
                head=PackedLinear(self.head.weight, self.head.bias),
            )
        return self._exact

    def _packed(self, side: str, layer: int) -> PackedLinear:
        weight: Tensor = getattr(self.recurrent, f"weight_{side}_l{layer}")
        bias: Tensor = getattr(self.recurrent, f"bias_{side}_l{layer}")
        return PackedLinear(weight, bias)
