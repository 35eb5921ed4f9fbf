"""A model whose inference runs in CPU kernels: passes its state and weights to them.

Legend: B batch, T time, V vocabulary, K recent tokens.
"""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.kernels.cpu.barrier_group import BarrierGroup
from charlm_model.kernels.cpu.weights import zeros
from charlm_model.kernels.threads.call_sharding import CallSharder
from charlm_model.kernels.threads.row_sharding import small_shard_rows
from charlm_model.language_model import Burst, LanguageModel
from charlm_model.sampling.philox import Counters
from charlm_model.state import State
from charlm_model.tensor_memory import bits_of, clone

# Weights up to this size stay in the processor's caches. Rows are then split into small shards,
# whose states stay in the caches too while several steps are sampled, and threads finish together.
SMALL_WEIGHTS = 4 << 20


class KernelModel(LanguageModel):
    """`advance` and `sample` update the given state in place."""

    _kernel: Any  # the family's module, with `advance` and `sample`

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._packed: Any = None
        self._operations_per_token = 0  # approximate, for one row
        self._sharder = CallSharder()
        self._workspace_sizes: dict[tuple[int, int, int], int] = {}  # by members, rows and tokens

    @abstractmethod
    def _pack(self) -> Any:
        """The weights in the layout of the kernels."""

    @abstractmethod
    def _carried(self, state: State) -> list[Tensor]:
        """The tensors that the kernels update, without the recent tokens."""

    @abstractmethod
    def _after(self, carried: list[Tensor], state: State) -> dict[str, Tensor]:
        """The same tensors by name, in the shapes of the state."""

    def train(self, mode: bool = True) -> "KernelModel":
        self._packed = None  # the weights may change before the next `advance`
        super().train(mode)
        return self

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        packed, recent_BK, carried = self._ready(state)
        ids = ids_BT.contiguous().numpy()
        logits_BTV = np.empty((*ids.shape, self.config.vocab_size), np.float32)
        arrays = [ids, *map(bits_of, (recent_BK, *carried)), logits_BTV]
        self._run_kernel(self._kernel.advance, packed, arrays, num_tokens=ids.shape[1])
        return torch.from_numpy(logits_BTV), self._state(recent_BK, carried, state)

    @torch.inference_mode()
    def sample(
        self, logits_BV: Tensor, state: State, counters: Counters, num_steps: int
    ) -> tuple[Burst, Tensor, State]:
        packed, recent_BK, carried = self._ready(state)
        logits_B1V = clone(logits_BV)[:, None]
        burst = Burst.empty(len(logits_BV), num_steps)
        arrays = [counters.columns_B3, *map(bits_of, (recent_BK, *carried, logits_B1V)), *burst]
        self._run_kernel(self._kernel.sample, packed, arrays, num_tokens=1, num_steps=num_steps)
        return burst, logits_B1V[:, 0], self._state(recent_BK, carried, state)

    def _run_kernel(
        self,
        kernel: Any,
        packed: Any,
        arrays: list[NDArray[Any]],
        *,
        num_tokens: int,
        num_steps: int = 1,
    ) -> None:
        """Run a kernel on all rows of the arrays, split among threads."""

        def work(rows: slice, group: BarrierGroup, workspace: NDArray[np.float32]) -> None:
            kernel(packed, group, workspace, *(array[rows] for array in arrays))

        def make_workspace(num_members: int, num_rows: int) -> NDArray[np.float32]:
            sizes = num_members, num_rows, num_tokens
            if sizes not in self._workspace_sizes:
                self._workspace_sizes[sizes] = self._kernel.workspace_size(packed, *sizes)
            return zeros(self._workspace_sizes[sizes])

        operations = num_tokens * num_steps * self._operations_per_token
        kind = num_tokens.bit_length(), num_steps > 1
        num_rows, is_small = len(arrays[0]), packed.weights.nbytes <= SMALL_WEIGHTS
        max_rows = small_shard_rows(num_rows) if is_small else None
        self._sharder.shard(work, make_workspace, num_rows, operations, kind, max_rows)

    def _ready(self, state: State) -> tuple[Any, Tensor, list[Tensor]]:
        if self._packed is None:
            self._packed = self._pack()
            self._operations_per_token = 2 * len(self._packed.weights)
        recent_BK = state.tensors.get("recent")
        if recent_BK is None:
            recent_BK = torch.empty(state.batch_size, 0, dtype=torch.long)
        return (
            self._packed,
            recent_BK.contiguous(),
            [each.detach().contiguous() for each in self._carried(state)],
        )

    def _state(self, recent_BK: Tensor, carried: list[Tensor], before: State) -> State:
        recent = {"recent": recent_BK} if "recent" in before.tensors else {}
        return State({**self._after(carried, before), **recent})
