"""AR(tau): the next token from the last tau, by interpolated modified Kneser-Ney.

Legend: B batch, T time, V vocabulary, K context tokens, M contexts.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from torch import Tensor

from charlm_model import exact_math
from charlm_model.config import ModelConfig
from charlm_model.families.kneser_ney import BEFORE_START, Depth, Floats, Ints
from charlm_model.language_model import LanguageModel
from charlm_model.state import State
from charlm_model.text.vocabulary import END_OF_TEXT_ID

# Probabilities that are computed at a time: 16 MB.
_MAX_PROBABILITIES = 2_000_000
_FIELDS = ("keys", "starts", "tokens", "shares", "backoff")


class NGram(LanguageModel):
    """A model of the last `context_length` tokens; its logits are log-probabilities.

    It has no gradients: `kneser_ney.fit` makes its tables.
    """

    def __init__(self, config: ModelConfig, depths: list[Depth] | None = None) -> None:
        super().__init__(config)
        self._depths = depths or [_uniform_depth(config.vocab_size)]
        for number, depth in enumerate(self._depths):
            for field in _FIELDS:
                self.register_buffer(f"{field}_{number}", torch.from_numpy(getattr(depth, field)))

    @classmethod
    def from_tensors(cls, config: ModelConfig, tensors: Mapping[str, Tensor]) -> Self:
        num_depths = sum(name.startswith("keys_") for name in tensors)
        depths = [
            Depth(*(tensors[f"{field}_{number}"].numpy() for field in _FIELDS))
            for number in range(num_depths)
        ]
        if num_depths not in (1, config.context_length + 1):
            raise ValueError(f"{num_depths} tables do not fit the order {config.context_length}")
        for depth in depths:
            depth.check(config.vocab_size)
        return cls(config, depths)

    @property
    def num_parameters(self) -> int:
        """Stored probabilities and back-off weights."""
        return sum(len(depth.shares) + len(depth.backoff) for depth in self._depths)

    def initial_state(self, batch_size: int) -> State:
        shape = batch_size, self.config.context_length
        return State({"recent": torch.full(shape, BEFORE_START, dtype=torch.long)})

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        return self.advance(ids_BT, state)

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        B, T = ids_BT.shape
        K = self.config.context_length
        seen_BS = torch.cat([state["recent"], ids_BT], 1)
        contexts_MK = seen_BS[:, 1:].unfold(1, K, 1).reshape(B * T, K).numpy()[:, ::-1]
        logits_MV = np.empty((B * T, self.config.vocab_size), dtype=np.float32)
        chunk = max(1, _MAX_PROBABILITIES // self.config.vocab_size)
        for start in range(0, B * T, chunk):
            rows = slice(start, start + chunk)
            logits_MV[rows] = exact_math.log(self._probabilities(contexts_MK[rows]))
        return torch.from_numpy(logits_MV).view(B, T, -1), State({"recent": seen_BS[:, -K:]})

    def _probabilities(self, contexts_MK: Ints) -> Floats:
        """p(v) after each context (newest token first), from the shortest one up."""
        num_contexts, V = len(contexts_MK), self.config.vocab_size
        root, p_1V = np.zeros(1, dtype=np.int64), np.full((1, V), 1 / V)
        _interpolate(p_1V, root, root, self._depths[0])  # the unigram distribution
        p_MV = np.repeat(p_1V, num_contexts, axis=0)
        rows, nodes = np.arange(num_contexts), np.zeros(num_contexts, dtype=np.int64)
        is_outside = np.zeros(num_contexts, dtype=bool)
        for depth, token_M in zip(self._depths[1:], contexts_MK.T, strict=False):
            oldest = np.where(is_outside, BEFORE_START, token_M)
            is_outside |= oldest == END_OF_TEXT_ID
            wanted = nodes * (V + 1) + oldest[rows] + 1
            nodes = np.minimum(np.searchsorted(depth.keys, wanted), len(depth.keys) - 1)
            is_known = depth.keys[nodes] == wanted
            rows, nodes = rows[is_known], nodes[is_known]
            _interpolate(p_MV, rows, nodes, depth)
        return p_MV


def _interpolate(p_MV: Floats, rows: Ints, nodes: Ints, depth: Depth) -> None:
    """p <- shares(node) + backoff(node) p, in the given rows."""
    p_MV[rows] *= depth.backoff[nodes][:, None]
    starts = depth.starts[nodes]
    lengths = depth.starts[nodes + 1] - starts
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    entries = np.repeat(starts, lengths) + within
    p_MV[np.repeat(rows, lengths), depth.tokens[entries]] += depth.shares[entries]


def _uniform_depth(vocab_size: int) -> Depth:
    """The table of a model without data: a uniform distribution."""
    nothing = np.zeros(0)
    return Depth(
        keys=np.zeros(1, dtype=np.int64),
        starts=np.zeros(2, dtype=np.int64),
        tokens=nothing.astype(np.int64),
        shares=nothing,
        backoff=np.ones(1),
    )
