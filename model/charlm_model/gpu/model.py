"""A model whose exact path runs on a GPU.

Legend: B rows, T tokens, V vocabulary, K steps.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from charlm_model.families.recurrent import RecurrentModel
from charlm_model.families.transformer import Transformer
from charlm_model.gpu import recurrent, transformer
from charlm_model.gpu.workspace import MAX_TOKENS, GpuWorkspace
from charlm_model.kernels.cpu.sampling import logprobs_of_drawn
from charlm_model.kernels.triton.tiling import TILING, Tiling
from charlm_model.language_model import Burst, LanguageModel
from charlm_model.sampling.philox import Counters
from charlm_model.state import State

MakeWorkspace = Callable[[int], GpuWorkspace]


class GpuModel(LanguageModel):
    """Takes ids and returns logits in CPU memory; states stay on the device.

    A row's bits do not depend on B, T, its index or the other rows, but they differ from those of
    the CPU. `forward` is the same as `advance`: such a model is not trained.
    """

    def __init__(
        self,
        model: LanguageModel,
        device: torch.device,
        tiling: Tiling = TILING,
    ) -> None:
        super().__init__(model.config)
        self._like, self._device = model, device
        # States are large: new ones are copied from this one on the device.
        self._begun = model.initial_state(1).to(device)
        self._make_workspace = _workspace_factory(model, device, tiling)
        self._workspaces: dict[int, GpuWorkspace] = {}
        self._lock = threading.Lock()  # calls share the memory of workspaces

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def num_probe_tokens(self) -> int:
        """Enough to run the graph of every length that a text is split into."""
        return 2 * MAX_TOKENS - 1

    def initial_state(self, batch_size: int) -> State:
        return self._begun.select_rows([0] * batch_size)

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        return self.advance(ids_BT, state)

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        self._check(ids_BT)
        B, T = ids_BT.shape
        logits_BTV = torch.empty(B, T, self.config.vocab_size)
        with self._lock, self._current():
            workspace = self._workspace(B)
            first = 0
            while first < T:
                length = min(workspace.max_tokens, 1 << ((T - first).bit_length() - 1))
                part = slice(first, first + length)
                logits_BTV[:, part] = workspace.read(ids_BT[:, part], state)
                first += length
        return logits_BTV, state

    @torch.inference_mode()
    def sample(
        self, logits_BV: Tensor, state: State, counters: Counters, num_steps: int
    ) -> tuple[Burst, Tensor, State]:
        burst = Burst.empty(len(logits_BV), num_steps)
        with self._lock, self._current():
            workspace = self._workspace(len(logits_BV))
            for first in range(0, num_steps, MAX_TOKENS):
                length = min(MAX_TOKENS, num_steps - first)
                moved = counters._replace(positions_B=counters.positions_B + np.uint64(first))
                drawn_KB3, logits_BV = workspace.draw(logits_BV, state, moved, length)
                part = slice(first, first + length)
                burst.ids_BK[:, part] = drawn_KB3[:, :, 0].T
                logprobs_of_drawn(drawn_KB3, burst.logprobs_BK[:, part])
        return burst, logits_BV, state

    def _workspace(self, batch_size: int) -> GpuWorkspace:
        if batch_size not in self._workspaces:
            self._workspaces[batch_size] = self._make_workspace(batch_size)
        return self._workspaces[batch_size]

    def _current(self) -> AbstractContextManager[object]:
        """Launches go to the current device."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _check(self, ids_BT: Tensor) -> None:
        if bool(((ids_BT < 0) | (ids_BT >= self.config.vocab_size)).any()):
            raise IndexError("a token id is not in the vocabulary")


def _workspace_factory(model: LanguageModel, device: torch.device, tiling: Tiling) -> MakeWorkspace:
    if isinstance(model, RecurrentModel):
        cells = recurrent.pack(model, device)
        return lambda batch_size: recurrent.RecurrentWorkspace(cells, batch_size, tiling, device)
    assert isinstance(model, Transformer), model.config.family
    blocks = transformer.pack(model, device)
    return lambda batch_size: transformer.TransformerWorkspace(blocks, batch_size, tiling, device)
