"""A model with its optimizer and its windows (a Learner, as fastai calls it); makes steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_model.state import State
from charlm_training.budget import Spent
from charlm_training.corpus.windows import Position, Window, Windows
from charlm_training.optim.optimizer import Optimizer
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.state_tree import Record
from charlm_training.step.cuda_graph_update import CudaGraphCapturer, GraphedUpdate
from charlm_training.step.memory import keep_memory
from charlm_training.step.update import Update


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """Loss and gradient norm of one step, before its update."""

    loss_nats: float
    gradient_norm: float
    num_targets: int


@dataclass(frozen=True, slots=True)
class LearnerSnapshot:
    """A learner at one moment. A restored learner continues exactly from there.

    The state is that of the whole batch, however many processes share it.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, object]
    state: State | None
    position: Position
    steps: int
    tokens: int
    random: Tensor

    def to_record(self) -> Record:
        """As nested plain values and tensors; `from_record` is the way back."""
        return {
            "weights": dict(self.weights),
            "optimizer": self.optimizer,
            "state": None if self.state is None else dict(self.state.tensors),
            "position": asdict(self.position),
            "steps": self.steps,
            "tokens": self.tokens,
            "random": self.random,
        }

    @classmethod
    def from_record(cls, record: Record) -> LearnerSnapshot:
        state = None if record["state"] is None else State(record["state"])
        position = Position(**record["position"])
        return cls(**{**record, "state": state, "position": position})


class Learner:
    """Fits a model by truncated BPTT with teacher forcing, one window at a time."""

    def __init__(
        self,
        model: LanguageModel,
        windows: Windows,
        *,
        clip_norm: float,
        weight_decay: float,
        muon_rate: float = 0.0,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        keep_memory()
        self.model, self._group = model, group
        self._own_rows, self._batch_size = windows.shape.own_rows(), windows.shape.batch_size
        self._windows = windows
        self._optimizer = Optimizer(model, muon_rate=muon_rate, weight_decay=weight_decay)
        self._update = update_of(
            Update(model, self._optimizer, clip_norm, self._own_rows, self._batch_size, group)
        )
        self._state: State | None = None
        self._next: Window
        self._steps = self._tokens = 0
        group.broadcast_weights(model.state_dict())
        self._seek(Position())

    @property
    def spent(self) -> Spent:
        return Spent(self._steps, self._tokens / self._windows.tokens_per_epoch)

    @property
    def tokens(self) -> int:
        return self._tokens

    def step(self, rate: float) -> StepResult:
        """One window forward and backward, one update at this learning rate."""
        window = self._next
        loss_and_norm_2, self._state = self._update(window, self._state, rate)
        self._next = next(self._upcoming)  # prepared while the GPU still computes
        loss_nats, gradient_norm = loss_and_norm_2.tolist()
        return self._count(window, loss_nats, gradient_norm)

    def snapshot(self) -> LearnerSnapshot:
        return LearnerSnapshot(
            weights=copy.deepcopy(self.model.state_dict()),
            optimizer=copy.deepcopy(self._optimizer.state_dict()),
            state=None if self._state is None else self._whole(self._state),
            position=self._position,
            steps=self._steps,
            tokens=self._tokens,
            random=_random_state(self.model.device),
        )

    def restore(self, snapshot: LearnerSnapshot) -> None:
        self.model.load_state_dict(snapshot.weights)
        self._optimizer.load_state_dict(copy.deepcopy(snapshot.optimizer))
        self._state = None if snapshot.state is None else self._own(snapshot.state)
        self._steps, self._tokens = snapshot.steps, snapshot.tokens
        _set_random_state(self.model.device, snapshot.random)
        self._update.forget()
        self._seek(snapshot.position)

    def _whole(self, state: State) -> State:
        return self._group.gather_rows(state, self._own_rows, self._batch_size)

    def _own(self, state: State) -> State:
        own = State({name: tensor[self._own_rows] for name, tensor in state.tensors.items()})
        return own.to(self.model.device, copy=True)

    def _seek(self, position: Position) -> None:
        self._position = position
        self._upcoming: Iterator[Window] = self._windows.starting_at(position)
        self._next = next(self._upcoming)

    def _count(self, window: Window, loss_nats: float, gradient_norm: float) -> StepResult:
        self._position = window.after
        self._steps += 1
        self._tokens += window.num_targets
        return StepResult(
            loss_nats=loss_nats, gradient_norm=gradient_norm, num_targets=window.num_targets
        )


def update_of(update: Update) -> Update | GraphedUpdate:
    """A CUDA graph on a single GPU. Processes that share a batch must communicate inside a step."""
    device = update.model.device
    if device.type == "cuda" and update.group.is_single:
        return GraphedUpdate(update, CudaGraphCapturer(device))
    return update


def _random_state(device: torch.device) -> Tensor:
    """The state of the generator of dropout."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
