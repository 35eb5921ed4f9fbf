"""Only batch sizes that give a row its own bits are used."""

import pytest
import torch
from torch import Tensor

from charlm_model.state import State
from charlm_server.models.batch_invariance import measure_batch_invariance
from charlm_server.models.loading import batch_sizes
from tests.server.conftest import Clock, PeriodicModel
from tests.server.wire import checkpoint_of, vocabulary_of


class FickleModel(PeriodicModel):
    """In batches of some sizes the last bit of its logits differs."""

    def __init__(self, fickle_sizes: set[int]) -> None:
        super().__init__(Clock())
        self.fickle_sizes = fickle_sizes

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        logits_BTV, state = super().advance(ids_BT, state)
        if len(ids_BT) in self.fickle_sizes:
            logits_BTV = torch.nextafter(logits_BTV, torch.full_like(logits_BTV, 100.0))
        return logits_BTV, state


class MoodyModel(PeriodicModel):
    """A row's logits depend on where it stands."""

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        logits_BTV, state = super().advance(ids_BT, state)
        return logits_BTV + torch.arange(len(ids_BT))[:, None, None], state


def test_batch_sizes_that_change_a_bit_are_not_used() -> None:
    batch_invariance = measure_batch_invariance(FickleModel({1, 2, 3}), [1, 2, 3, 4, 8])

    assert batch_invariance.sizes == (4, 8)
    assert batch_invariance.is_batch_invariant


def test_rows_are_computed_alone_if_their_position_matters() -> None:
    batch_invariance = measure_batch_invariance(MoodyModel(Clock()), [1, 4, 8])

    assert batch_invariance.sizes == (1,)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer"])
def test_all_families_are_batch_invariant(family: str) -> None:
    model = checkpoint_of(family, vocabulary_of("char")).model

    batch_invariance = measure_batch_invariance(model, [1, 2, 3, 4, 6, 8])

    assert batch_invariance.is_batch_invariant
    assert batch_invariance.sizes[-1] == 8


def test_batch_sizes_reach_the_largest_and_pad_by_a_third_at_most() -> None:
    assert batch_sizes(64) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert batch_sizes(5) == [1, 2, 3, 4, 5]
