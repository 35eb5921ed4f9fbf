"""The arithmetic of a training step: a window forward, its loss backward, an update.

Legend: B batch, T time, V vocabulary, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from charlm_model.language_model import LanguageModel
from charlm_model.layers.dropout import rows_of_batch
from charlm_model.state import State
from charlm_training.corpus.windows import NO_TARGET, Window
from charlm_training.optim.optimizer import Optimizer
from charlm_training.process_group import ProcessGroup


@dataclass(frozen=True, slots=True)
class Update:
    """Makes steps directly, on the device of the model."""

    model: LanguageModel
    optimizer: Optimizer
    clip_norm: float
    own_rows: slice
    batch_size: int
    group: ProcessGroup

    def __call__(self, window: Window, state: State | None, rate: float) -> tuple[Tensor, State]:
        """The loss in nats and the gradients' norm (2), and the state after the window."""
        window = window.to(self.model.device)
        loss, after = self.gradients(
            window.input_BT, window.target_BT, window.num_targets, self._before(window, state)
        )
        loss = self.group.all_reduce_gradients(self.model.parameters(), loss)
        self.optimizer.set_rate(rate)
        norm = self.optimizer.step(self.clip_norm)
        return torch.stack([loss, norm]), after

    def forget(self) -> None:
        """Nothing to discard: this class keeps no tensors of earlier steps."""

    def gradients(
        self, input_BT: Tensor, target_BT: Tensor, num_targets: int | Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Computes the gradients of the parameters; returns the detached loss and state."""
        self.model.train()
        with rows_of_batch(self.own_rows, self.batch_size):
            logits_BTV, after = self.model(input_BT, state)
        loss = token_loss(logits_BTV, target_BT, num_targets)
        loss.backward()
        return loss.detach(), after.detach()  # the truncation: no gradient crosses a window

    def _before(self, window: Window, state: State | None) -> State:
        if state is None or bool(window.is_fresh_B.all()):
            return self.model.initial_state(len(window.is_fresh_B))
        if not bool(window.is_fresh_B.any()):
            return state
        return self.model.reset_rows(state, window.is_fresh_B)


def token_loss(
    logits_BTV: Tensor, target_BT: Tensor, num_targets: int | Tensor | None = None
) -> Tensor:
    """Cross-entropy in nats over the tokens that have a target: its mean.

    With `num_targets`, the sum over the given rows divided by it: the share of a part of a batch.
    """
    logits_NV, target_N = logits_BTV.flatten(0, 1), target_BT.flatten()
    nats = cross_entropy(logits_NV, target_N, ignore_index=NO_TARGET, reduction="sum")
    return nats / ((target_BT != NO_TARGET).sum() if num_targets is None else num_targets)
