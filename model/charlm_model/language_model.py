"""The words that every family offers, so that no one asks which one it has.

Legend: B batch, T time, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

from torch import Tensor, nn

from charlm_model.config import ModelConfig
from charlm_model.state import State


class LanguageModel(nn.Module, ABC):
    """p(x_t | x_<t) for every t.

    `forward` is for training: differentiable, through fused kernels. `advance` and `step` are the
    exact path: inference only, the same bits for a row whatever B, T, its position and its company.
    The exact path may reuse the storage of the state it is given; clone a state to keep it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_tensors(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Self:
        """The model whose parameters are these, by name."""
        model = cls(config)
        model.load_state_dict(dict(tensors), strict=True)
        return model

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first token of a text."""

    @abstractmethod
    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, T, V) after each token, and the state after the last."""

    @abstractmethod
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """What `forward` computes, equal to T steps bit for bit."""

    def step(self, ids_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance every row by one token: logits (B, V) and the state."""
        logits_B1V, state = self.advance(ids_B[:, None], state)
        return logits_B1V[:, 0], state

    def reset_rows(self, state: State, rows_B: Tensor) -> State:
        """The state with the marked rows put back to the start of a text. Differentiable."""
        fresh = self.initial_state(state.batch_size)
        return State(
            {
                name: fresh[name].where(rows_B.view(-1, *[1] * (tensor.dim() - 1)), tensor)
                for name, tensor in state.tensors.items()
            }
        )

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
