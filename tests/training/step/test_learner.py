"""A learner learns, and a restored one continues as if nothing had happened."""

from collections.abc import Callable

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_training.corpus.dataset import Data
from charlm_training.corpus.windows import NO_TARGET, BatchShape
from charlm_training.planning.plan import windows_of
from charlm_training.step.learner import Learner
from charlm_training.step.update import token_loss

Read = Callable[..., Data]
FAMILIES = ["rnn", "gru", "lstm", "transformer"]


def learner_of(family: str, data: Data, *, dropout: float = 0.0, hidden_size: int = 16) -> Learner:
    torch.manual_seed(0)
    config = ModelConfig(
        family=family,
        vocab_size=data.vocabulary.size,
        unit=data.unit,
        hidden_size=hidden_size,
        embedding_size=8,
        num_heads=2,
        context_length=16,
        dropout=dropout,
    )
    windows = windows_of(data, BatchShape(batch_size=4, length=16, seed=1))
    return Learner(build(config), windows, clip_norm=1.0, weight_decay=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_period_of_four_is_learned(read: Read, family: str) -> None:
    learner = learner_of(family, read("abcd" * 300))

    losses = [learner.step(0.02).loss_nats for _ in range(100)]

    assert min(losses) / 0.6931 < 0.2


def test_lines_are_learned_with_their_ends(read: Read) -> None:
    learner = learner_of("lstm", read("anna\nbob\ncarla\n" * 60, unit="line"))

    losses = [learner.step(0.03).loss_nats for _ in range(120)]

    # What cannot be learned is which of the three names comes: ln 3 nats for each of them.
    assert min(losses) < 1.0986 / 5 + 0.15


@pytest.mark.parametrize("hidden_size", [16, 64])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_restored_learner_continues_bit_for_bit(
    read: Read, family: str, hidden_size: int
) -> None:
    """Dropout, carried state, optimizer and data position all come back, in any kernels."""
    data = read("the cat sat on the mat. " * 30)
    learner = learner_of(family, data, dropout=0.3, hidden_size=hidden_size)
    for _ in range(7):
        learner.step(0.01)
    snapshot = learner.snapshot()
    straight_on = [learner.step(0.01) for _ in range(6)]
    straight_weights = learner.snapshot().weights

    learner.restore(snapshot)

    assert [learner.step(0.01) for _ in range(6)] == straight_on
    for name, weight in learner.snapshot().weights.items():
        assert torch.equal(weight, straight_weights[name])


def test_a_snapshot_is_not_changed_by_later_steps(read: Read) -> None:
    learner = learner_of("lstm", read("abcd" * 100))
    learner.step(0.01)
    snapshot = learner.snapshot()
    before = {name: weight.clone() for name, weight in snapshot.weights.items()}

    learner.step(0.1)

    assert all(torch.equal(before[name], weight) for name, weight in snapshot.weights.items())


def test_no_gradient_crosses_a_window(read: Read) -> None:
    learner = learner_of("lstm", read("abcd" * 100))

    learner.step(0.01)

    state = learner.snapshot().state
    assert state is not None
    assert not any(tensor.requires_grad for tensor in state.tensors.values())


def test_padding_does_not_count(read: Read) -> None:
    logits_BTV = torch.randn(2, 3, 5)
    target_BT = torch.tensor([[1, 2, NO_TARGET], [3, NO_TARGET, NO_TARGET]])

    loss = token_loss(logits_BTV, target_BT)

    chosen = [(0, 0, 1), (0, 1, 2), (1, 0, 3)]
    logprobs_BTV = logits_BTV.log_softmax(-1)
    expected = -sum(logprobs_BTV[index] for index in chosen) / 3
    torch.testing.assert_close(loss, expected)


def test_epochs_are_counted_in_tokens(read: Read) -> None:
    learner = learner_of("rnn", read("abcd" * 300))  # 1,081 tokens: 16 windows of 4 x 16

    for _ in range(8):
        learner.step(0.01)

    assert learner.spent.steps == 8
    assert learner.spent.epochs == pytest.approx(0.5)
