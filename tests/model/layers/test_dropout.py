"""Dropout zeroes the given share of numbers and keeps the mean."""

import pytest
import torch

from charlm_model.layers.dropout import dropout, rows_of_batch


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(100_003,), (100, 10, 101)])
def test_dropout_zeroes_its_share_and_keeps_the_mean(share: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)

    y = dropout(torch.ones(shape), share, training=True)

    assert float((y == 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.03)
    assert y.unique().numel() == 2


def test_neighbors_are_dropped_independently() -> None:
    torch.manual_seed(0)

    kept_NB = (dropout(torch.ones(100_000, 8), 0.5, training=True) > 0).float()

    correlation_BB = torch.corrcoef(kept_NB.T)
    assert (correlation_BB - torch.eye(8)).abs().max() < 0.02


def test_nothing_is_dropped_outside_training_or_at_zero() -> None:
    x = torch.randn(3, 5)

    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_the_same_seed_drops_the_same() -> None:
    x, outputs = torch.randn(7, 11), []

    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(dropout(x, 0.3, training=True))

    assert torch.equal(*outputs)


def test_gradients_flow_through_kept_numbers() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, requires_grad=True)

    y = dropout(x, 0.5, training=True)
    y.sum().backward()

    assert x.grad is not None
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_a_part_of_a_batch_drops_what_the_whole_would() -> None:
    x_BT = torch.ones(5, 3)
    torch.manual_seed(3)
    whole = [dropout(x_BT, 0.5, training=True) for _ in range(2)]

    for own in (slice(0, 2), slice(2, 5)):
        torch.manual_seed(3)
        with rows_of_batch(own, 5):
            parts = [dropout(x_BT[own], 0.5, training=True) for _ in range(2)]
        for all_rows, rows in zip(whole, parts, strict=True):
            assert torch.equal(all_rows[own], rows)
