"""Training steps on a GPU as CUDA graphs: hundreds of small kernels launched by one call.

Launching the kernels of such models one by one takes longer than running them; as a graph, a step
takes a third of the time or less (docs/log/gpu.md).

Legend: B batch, T time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from charlm_model.state import State
from charlm_training.corpus.windows import NO_TARGET, Window
from charlm_training.step.update import Update

# Lengths of windows are rounded up to a multiple of this, because each has a graph of its own.
LENGTH_STEP = 16
Work = Callable[[], None]


class GraphCapturer(Protocol):
    """Captures work on always the same tensors, so that it can be repeated quickly."""

    def run(self, work: Work) -> None:
        """Do the work once, without capture, as a warm-up."""

    def capture(self, work: Work) -> Work:
        """Capture the work without doing it; returns a function that does it."""


class CudaGraphCapturer:
    """Captures CUDA graphs on a stream of its own, which waits for the current stream."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def run(self, work: Work) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def capture(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            work()
        return lambda: self.run(graph.replay)


@dataclass(slots=True)
class GraphBuffers:
    """The input and output tensors of a graph for windows of one length, and its replay."""

    input_BT: Tensor
    target_BT: Tensor
    is_fresh_B: Tensor
    num_targets: Tensor
    loss_and_norm_2: Tensor
    replay: Work | None = None

    @classmethod
    def of(cls, batch_size: int, length: int, device: torch.device) -> GraphBuffers:
        ids_BT = torch.zeros(batch_size, length, dtype=torch.long, device=device)
        is_fresh_B = torch.ones(batch_size, dtype=torch.bool, device=device)
        numbers_2 = torch.zeros(2, device=device)
        return cls(ids_BT, ids_BT.clone(), is_fresh_B, torch.ones((), device=device), numbers_2)

    def put(self, window: Window) -> None:
        """Copy a window in; a shorter one is padded with positions that have no target."""
        length = window.input_BT.shape[1]
        self.input_BT[:, :length].copy_(window.input_BT, non_blocking=True)
        self.target_BT[:, :length].copy_(window.target_BT, non_blocking=True)
        self.target_BT[:, length:].fill_(NO_TARGET)
        self.is_fresh_B.copy_(window.is_fresh_B, non_blocking=True)
        self.num_targets.fill_(window.num_targets)


@dataclass(slots=True)
class GraphedUpdate:
    """Makes the steps of an `Update`: the first of each length directly, later ones as a graph.

    The state is always the same tensors. When other tensors of a graph are replaced, such as the
    optimizer's moments, `forget` must be called.
    """

    update: Update
    capturer: GraphCapturer
    _state: State | None = field(init=False, default=None)
    _buffers: dict[int, GraphBuffers] = field(init=False, default_factory=dict)

    def __call__(self, window: Window, state: State | None, rate: float) -> tuple[Tensor, State]:
        kept = self._take_over(state, len(window.is_fresh_B))
        buffers = self._buffers_for(window)
        buffers.put(window)
        self.update.optimizer.set_rate(rate)
        if buffers.replay is None:
            self.capturer.run(lambda: self._work(buffers, kept))
            buffers.replay = self.capturer.capture(lambda: self._work(buffers, kept))
        else:
            buffers.replay()
        return buffers.loss_and_norm_2, kept

    def forget(self) -> None:
        """Discard all graphs, because tensors have been replaced."""
        self._state, self._buffers = None, {}

    def _buffers_for(self, window: Window) -> GraphBuffers:
        batch_size, length = window.input_BT.shape
        padded = -(-length // LENGTH_STEP) * LENGTH_STEP
        if padded not in self._buffers:
            self._buffers[padded] = GraphBuffers.of(batch_size, padded, self.update.model.device)
        return self._buffers[padded]

    def _take_over(self, state: State | None, batch_size: int) -> State:
        if self._state is None:
            self._state = self.update.model.initial_state(batch_size)
        if state is not None and state is not self._state:
            _write(self._state, state)
        return self._state

    def _work(self, buffers: GraphBuffers, kept: State) -> None:
        model, optimizer = self.update.model, self.update.optimizer
        before = model.reset_rows(kept, buffers.is_fresh_B)
        loss, after = self.update.gradients(
            buffers.input_BT, buffers.target_BT, buffers.num_targets, before
        )
        norm = optimizer.step(self.update.clip_norm)
        _write(kept, after)
        buffers.loss_and_norm_2.copy_(torch.stack([loss, norm]))


def _write(kept: State, state: State) -> None:
    for name, tensor in kept.tensors.items():
        tensor.copy_(state[name])
