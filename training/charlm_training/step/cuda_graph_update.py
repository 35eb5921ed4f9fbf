"""Steps on a GPU as a recording: hundreds of small kernels begun by one call.

A step of such models is over before a processor has begun its kernels one by one; begun together
they take a third of the time or less (docs/log/gpu.md).

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

# Documents come in all lengths, and every length has a recording of its own.
LENGTH_STEP = 16
Work = Callable[[], None]


class Recorder(Protocol):
    """Makes what is done over and over with the same tensors quick to begin."""

    def run(self, work: Work) -> None:
        """Do it now, as it will be done later: the first time prepares what it needs."""

    def record(self, work: Work) -> Work:
        """What does it again, each time it is called; now it is not done."""


class GraphRecorder:
    """CUDA graphs, on a stream of their own that waits for everyone else's work."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def run(self, work: Work) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            work()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            work()
        return lambda: self.run(graph.replay)


@dataclass(slots=True)
class GraphBuffers:
    """Where windows of one length are put, and what is done with them there."""

    input_BT: Tensor
    target_BT: Tensor
    is_fresh_B: Tensor
    num_targets: Tensor
    told_2: Tensor
    replay: Work | None = None

    @classmethod
    def of(cls, batch_size: int, length: int, device: torch.device) -> GraphBuffers:
        ids_BT = torch.zeros(batch_size, length, dtype=torch.long, device=device)
        is_fresh_B = torch.ones(batch_size, dtype=torch.bool, device=device)
        numbers_2 = torch.zeros(2, device=device)
        return cls(ids_BT, ids_BT.clone(), is_fresh_B, torch.ones((), device=device), numbers_2)

    def put(self, window: Window) -> None:
        """A shorter window is filled up with what has no target."""
        length = window.input_BT.shape[1]
        self.input_BT[:, :length].copy_(window.input_BT, non_blocking=True)
        self.target_BT[:, :length].copy_(window.target_BT, non_blocking=True)
        self.target_BT[:, length:].fill_(NO_TARGET)
        self.is_fresh_B.copy_(window.is_fresh_B, non_blocking=True)
        self.num_targets.fill_(window.num_targets)


@dataclass(slots=True)
class GraphedUpdate:
    """Makes the steps of an `Update`, each length of window once at once and then by recording.

    The state is always the same tensors. Whatever else the recordings hold on to, such as the
    optimizer's moments, must stay where it is, or `forget` must be called.
    """

    update: Update
    recorder: Recorder
    _state: State | None = field(init=False, default=None)
    _desks: dict[int, GraphBuffers] = field(init=False, default_factory=dict)

    def __call__(self, window: Window, state: State | None, rate: float) -> tuple[Tensor, State]:
        kept = self._take_over(state, len(window.is_fresh_B))
        desk = self._desk(window)
        desk.put(window)
        self.update.optimizer.set_rate(rate)
        if desk.replay is None:
            self.recorder.run(lambda: self._work(desk, kept))
            desk.replay = self.recorder.record(lambda: self._work(desk, kept))
        else:
            desk.replay()
        return desk.told_2, kept

    def forget(self) -> None:
        """Record anew: the tensors have been exchanged."""
        self._state, self._desks = None, {}

    def _desk(self, window: Window) -> GraphBuffers:
        batch_size, length = window.input_BT.shape
        padded = -(-length // LENGTH_STEP) * LENGTH_STEP
        if padded not in self._desks:
            self._desks[padded] = GraphBuffers.of(batch_size, padded, self.update.model.device)
        return self._desks[padded]

    def _take_over(self, state: State | None, batch_size: int) -> State:
        if self._state is None:
            self._state = self.update.model.initial_state(batch_size)
        if state is not None and state is not self._state:
            _write(self._state, state)
        return self._state

    def _work(self, desk: GraphBuffers, kept: State) -> None:
        model, optimizer = self.update.model, self.update.optimizer
        before = model.reset_rows(kept, desk.is_fresh_B)
        loss, after = self.update.gradients(desk.input_BT, desk.target_BT, desk.num_targets, before)
        norm = optimizer.step(self.update.clip_norm)
        _write(kept, after)
        desk.told_2.copy_(torch.stack([loss, norm]))


def _write(kept: State, state: State) -> None:
    for name, tensor in kept.tensors.items():
        tensor.copy_(state[name])
