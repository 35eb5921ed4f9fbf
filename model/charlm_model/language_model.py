"""The interface of every model family.

Legend: B batch, T time, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from charlm_model.config import ModelConfig
from charlm_model.sampling.draw import draw, logprobs_from
from charlm_model.sampling.philox import Counters
from charlm_model.state import State


class Burst(NamedTuple):
    """The tokens that B rows sampled in K steps, and their log-probs (nats)."""

    ids_BK: NDArray[np.int64]
    logprobs_BK: NDArray[np.float32]

    @staticmethod
    def empty(num_rows: int, num_steps: int) -> "Burst":
        shape = num_rows, num_steps
        return Burst(np.empty(shape, np.int64), np.empty(shape, np.float32))


class _Uninitialized(TorchFunctionMode):
    """Skips weight initialization: on the meta device torch would load its compiler for it."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs or {})


class LanguageModel(nn.Module, ABC):
    """p(x_t | x_<t) for every t.

    `forward` is for training: differentiable, through fused kernels. `advance`, `step` and `sample`
    are the exact path: for inference only, and batch invariant, so that the bits of a row do not
    depend on B, T, its index or the other rows. They may reuse the storage of the given state;
    clone a state to keep it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_tensors(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Self:
        """The model with these parameters, by name.

        Raises ValueError for missing, unknown or misshapen ones, before it allocates the model.
        """
        with torch.device("meta"), _Uninitialized():
            expected = cls(config).state_dict()
        for name in expected.keys() | tensors.keys():
            shapes = [
                list(each[name].shape) if name in each else None for each in (expected, tensors)
            ]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{name} has the shape {shapes[1]}; it must have {shapes[0]}")
        model = cls(config)
        model.load_state_dict(dict(tensors), strict=True)
        return model

    @property
    def device(self) -> torch.device:
        """The device of its weights and of the state that `forward` takes."""
        return next((each.device for each in self.parameters()), torch.device("cpu"))

    @property
    def num_probe_tokens(self) -> int:
        """How many tokens to read and to sample so that every kernel of the exact path has run."""
        return 3

    def on_cpu(self) -> Self:
        """This model, or a copy on the CPU, as checkpoints and the exact path need it."""
        if self.device.type == "cpu":
            return self
        weights = {name: tensor.cpu() for name, tensor in self.state_dict().items()}
        return type(self).from_tensors(self.config, weights)

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first token of a text."""

    def put_row(self, state: State, row: int, other: State) -> None:
        """Write the one row of another state over a row, in place."""
        state.put_row(row, other)

    @abstractmethod
    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, T, V) after each token, and the state after the last."""

    @abstractmethod
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """The same as `forward`, but exact: equal to T calls of `step`, bit for bit."""

    def step(self, ids_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance every row by one token: logits (B, V) and the state."""
        logits_B1V, state = self.advance(ids_B[:, None], state)
        return logits_B1V[:, 0], state

    def sample(
        self, logits_BV: Tensor, state: State, counters: Counters, num_steps: int
    ) -> tuple[Burst, Tensor, State]:
        """Tokens from the model's own distribution, `num_steps` for every row.

        `logits_BV` are those of the first token; returns those after the last, and the state.
        """
        burst = Burst.empty(len(logits_BV), num_steps)
        for step in range(num_steps):
            logprobs_BV = logprobs_from(logits_BV.numpy())
            ids_B = draw(logprobs_BV, counters.uniforms(step))
            burst.ids_BK[:, step] = ids_B
            burst.logprobs_BK[:, step] = logprobs_BV[np.arange(len(ids_B)), ids_B]
            logits_BV, state = self.step(torch.from_numpy(ids_B), state)
        return burst, logits_BV, state

    def reset_rows(self, state: State, rows_B: Tensor) -> State:
        """The state with the marked rows reset to the start of a text. Differentiable."""
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
