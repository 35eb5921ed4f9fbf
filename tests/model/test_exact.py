"""A row of a product has the same bits whatever rows travel with it."""

import pytest
import torch
from torch.nn import functional as F

from charlm_model import exact
from charlm_model.exact import PackedLinear, pad_rows, padded_linear, row_multiple

SHAPES = [(8, 5), (40, 160), (64, 65), (128, 384), (512, 130)]


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@pytest.mark.parametrize("is_packed", [True, False])
def test_a_row_never_changes(
    inputs: int, outputs: int, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_packed:
        monkeypatch.setattr(exact, "has_packed_product", lambda: False)
    torch.manual_seed(0)
    product = PackedLinear(torch.randn(outputs, inputs), torch.randn(outputs))
    row = torch.randn(1, inputs)
    alone = product(row)[0]

    for num_rows in (2, 3, 4, 7, 8, 9, 31, 64, 100):
        for position in {0, num_rows // 2, num_rows - 1}:
            company = torch.randn(num_rows, inputs)
            company[position] = row
            assert torch.equal(product(company)[position], alone)


@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_it_is_the_linear_map(inputs: int, outputs: int) -> None:
    weight, bias, x = torch.randn(outputs, inputs), torch.randn(outputs), torch.randn(3, 2, inputs)

    expected = F.linear(x, weight, bias)

    torch.testing.assert_close(PackedLinear(weight, bias)(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(padded_linear(x[:, 0], weight, bias), expected[:, 0])


def test_rows_are_padded_below() -> None:
    x = torch.ones(5, 2)

    assert pad_rows(x, 8).shape == (8, 2)
    assert torch.equal(pad_rows(x, 8)[:5], x)
    assert pad_rows(x, 5) is x


def test_whole_vectors_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "has_packed_product", lambda: True)
    assert [row_multiple(width) for width in (32, 64, 8, 5)] == [1, 1, 4, 32]
    monkeypatch.setattr(exact, "has_packed_product", lambda: False)
    assert [row_multiple(width) for width in (32, 8, 5)] == [8, 8, 32]
