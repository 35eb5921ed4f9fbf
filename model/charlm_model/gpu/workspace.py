"""GPU memory and launches for one batch size; graphs are replayed in the same memory.

Legend: B rows, T tokens, V vocabulary, S recent and new tokens of a row.
"""

from abc import ABC, abstractmethod
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.gpu.cuda_graphs import CudaGraphs
from charlm_model.gpu.weights import GpuEmbedding, GpuLinear, MatmulOptions
from charlm_model.kernels.triton.embedding import embed
from charlm_model.kernels.triton.sampling import NUM_COUNTERS, NUM_DRAWN, draw
from charlm_model.kernels.triton.tiling import Tiling, padded, power_of_two
from charlm_model.sampling.philox import Counters
from charlm_model.state import State

MAX_TOKENS = 64  # of a row, in one launch of graphs
_MAX_ROWS = 2048  # rows times tokens of one prefill
_MAX_BLOCK = 1024  # logits that a program loads at a time
_UNROLLED = 64  # powers that are added in one iteration
_SMALL_VOCABULARY = 256  # up to this size one warp loads the logits

Draws = NDArray[np.float64]


class GpuWorkspace(ABC):
    """Reads tokens, or samples them; returns logits and updates the state in place."""

    _head_options = MatmulOptions()  # of the head's product

    def __init__(
        self,
        embedding: GpuEmbedding,
        head: GpuLinear,
        batch_size: int,
        tiling: Tiling,
        device: torch.device,
    ) -> None:
        self._embedding, self._head, self._tiling, self._device = embedding, head, tiling, device
        self.batch_size = batch_size
        self.num_rows = tiling.padded(batch_size)
        self._graphs = CudaGraphs(device)
        rows = self.num_rows * self.max_tokens
        self._seen_BS = self._zeros(
            self.num_rows, embedding.num_recent + MAX_TOKENS, dtype=torch.long
        )
        self._x = self._zeros(rows, embedding.padded_width)
        self._logits = self._zeros(rows, head.num_outputs)
        self._counters = self._zeros(batch_size, NUM_COUNTERS.value, dtype=torch.long)
        self._powers = self._zeros(
            batch_size, padded(embedding.vocab_size, _UNROLLED), dtype=torch.float64
        )
        self._drawn = self._zeros(MAX_TOKENS, batch_size, NUM_DRAWN.value, dtype=torch.float64)
        self._host_counters = self._on_host(self._counters)
        self._host_logits = self._on_host(self._logits[:batch_size])
        self._host_drawn = self._on_host(self._drawn)

    @property
    def max_tokens(self) -> int:
        """The most tokens of a row in one prefill: a power of two."""
        together = max(1, _MAX_ROWS // self.num_rows)
        return min(MAX_TOKENS, 1 << (together.bit_length() - 1))

    def read(self, ids_BT: Tensor, state: State) -> Tensor:
        """Logits (B, T, V) after each token; the state is changed in place."""
        length = ids_BT.shape[1]
        first = self._embedding.num_recent
        self._seen_BS[: self.batch_size, first : first + length].copy_(ids_BT)
        self._begin(state, length)
        self._graphs.run(("read", length), lambda: self._enqueue_reading(length))
        self._end(state, length, length)
        logits_TBV = self._logits.view(self.max_tokens, self.num_rows, -1)
        told_TBV = logits_TBV[:length, : self.batch_size, : self._embedding.vocab_size]
        return told_TBV.transpose(0, 1).contiguous().cpu()

    def draw(
        self, logits_BV: Tensor, state: State, counters: Counters, num_steps: int
    ) -> tuple[Draws, Tensor]:
        """What `draw` writes for each token (K, B, 3), and the logits (B, V) after the last."""
        self._upload(logits_BV, counters)
        self._begin(state, 1)
        left = num_steps
        while left:
            together = 1 << (left.bit_length() - 1)
            self._graphs.run(("draw", together), partial(self._enqueue_drawing, together))
            left -= together
        self._end(state, 1, num_steps)
        return self._download(num_steps)

    # --- defined by families ---

    @abstractmethod
    def _load(self, state: State, length: int) -> None:
        """Copy the state into the workspace, before prefills of `length` tokens."""

    @abstractmethod
    def _store(self, state: State, length: int, num_tokens: int) -> None:
        """Write the state after `num_tokens`, read `length` at a time, into the given one."""

    @abstractmethod
    def _enqueue_layers(self, length: int, step: int) -> Tensor:
        """Launch all layers for `length` tokens; returns the rows that the head reads."""

    # --- shared by all families ---

    def _begin(self, state: State, length: int) -> None:
        num_recent = self._embedding.num_recent
        if num_recent:
            self._seen_BS[: self.batch_size, :num_recent].copy_(state["recent"])
        self._load(state, length)

    def _end(self, state: State, length: int, num_tokens: int) -> None:
        num_recent = self._embedding.num_recent
        if num_recent:
            newest_BK = self._seen_BS[: self.batch_size, num_tokens : num_tokens + num_recent]
            state["recent"].copy_(newest_BK)
        self._store(state, length, num_tokens)

    def _upload(self, logits_BV: Tensor, counters: Counters) -> None:
        self._host_logits[:, : self._embedding.vocab_size] = logits_BV
        self._host_counters[:, :3] = torch.from_numpy(counters.columns_B3.view(np.int64))
        self._logits[: self.batch_size].copy_(self._host_logits, non_blocking=True)
        self._counters.copy_(self._host_counters, non_blocking=True)

    def _download(self, num_steps: int) -> tuple[Draws, Tensor]:
        self._host_drawn[:num_steps].copy_(self._drawn[:num_steps], non_blocking=True)
        self._host_logits.copy_(self._logits[: self.batch_size], non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        logits_BV = self._host_logits[:, : self._embedding.vocab_size].clone()
        return self._host_drawn[:num_steps].numpy().copy(), logits_BV

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def _on_host(self, tensor: Tensor) -> Tensor:
        """Pinned CPU memory, which the device copies from and to asynchronously."""
        is_pinned = self._device.type == "cuda"
        return torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=is_pinned)

    # --- launches ---

    def _enqueue_reading(self, length: int) -> None:
        self._enqueue_embedding(length)
        self._enqueue_head(self._enqueue_layers(length, 0), length)

    def _enqueue_drawing(self, num_steps: int) -> None:
        for step in range(num_steps):
            self._enqueue_draw()
            self._enqueue_head(self._enqueue_layers(1, step), 1)

    def _enqueue_embedding(self, length: int) -> None:
        embedding = self._embedding
        embed[(self.num_rows, length)](
            self._seen_BS, embedding.rows, self._x,
            FIRST=embedding.num_recent,
            STRIDE=self._seen_BS.shape[1],
            OUT_STRIDE=embedding.padded_width,
            VOCAB=embedding.vocab_size,
            WIDTH=embedding.width,
            KERNEL=embedding.kernel_size,
            PAIRS=embedding.pair_rows,
            BLOCK=embedding.block,
            num_warps=1,
        )  # fmt: skip

    def _enqueue_draw(self) -> None:
        embedding = self._embedding
        draw[(self.batch_size,)](
            self._logits, self._counters, self._powers, self._seen_BS,
            embedding.rows, self._drawn, self._x,
            VOCAB=embedding.vocab_size,
            LOGITS_STRIDE=self._logits.shape[1],
            POWERS_STRIDE=self._powers.shape[1],
            FIRST=embedding.num_recent,
            SEEN_STRIDE=self._seen_BS.shape[1],
            OUT_STRIDE=embedding.padded_width,
            WIDTH=embedding.width,
            KERNEL=embedding.kernel_size,
            PAIRS=embedding.pair_rows,
            BLOCK=min(power_of_two(embedding.vocab_size), _MAX_BLOCK),
            WIDTH_BLOCK=embedding.block,
            num_warps=1 if embedding.vocab_size <= _SMALL_VOCABULARY else 4,
        )  # fmt: skip

    def _enqueue_head(self, rows: Tensor, length: int) -> None:
        num_rows = self.num_rows * length
        self._head.multiply(rows, self._logits, num_rows, self._tiling, self._head_options)
