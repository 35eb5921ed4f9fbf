"""The kernels that train an LSTM's layer compute what torch's do, as far as bfloat16 can tell."""

import pytest
import torch
from torch import Tensor, nn

from charlm_model import lstm_layer
from charlm_model.config import ModelConfig
from charlm_model.precision import has_fast_bfloat16
from charlm_model.recurrent import RecurrentModel

pytestmark = pytest.mark.skipif(
    not has_fast_bfloat16(), reason="this processor has no products of bfloat16"
)
# Rows that fill tiles and rows that do not; a single step; inputs narrower than a vector.
SIZES = [(16, 9, 64, 96), (5, 7, 6, 32), (3, 1, 2, 32), (13, 4, 32, 64)]


def rounded(module: nn.LSTM) -> nn.LSTM:
    """Weights that bfloat16 holds exactly."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.bfloat16())
    return module


def inputs(B: int, T: int, E: int, H: int) -> list[Tensor]:
    x_BTE, hidden_BH, cell_BH = torch.randn(B, T, E), torch.rand(B, H) - 0.5, torch.randn(B, H)
    return [each.bfloat16().float().requires_grad_() for each in (x_BTE, hidden_BH, cell_BH)]


@pytest.mark.parametrize("size", SIZES)
def test_outputs_and_gradients_are_torchs(size: tuple[int, int, int, int]) -> None:
    torch.manual_seed(0)
    lstm = rounded(nn.LSTM(size[2], size[3], batch_first=True))
    given = inputs(*size)
    wanted = [torch.randn(*size[:2], size[3]), *torch.randn(2, size[0], size[3])]

    ours = lstm_layer.lstm_layer(*given, tuple(lstm.all_weights[0]))
    sum((a.float() * b).sum() for a, b in zip(ours, wanted, strict=True)).backward()
    found = [each.grad.double() for each in (*given, *lstm.parameters())]

    exact = nn.LSTM(size[2], size[3], batch_first=True).double()
    exact.load_state_dict(lstm.state_dict())
    x, hidden, cell = (each.detach().double().requires_grad_() for each in given)
    y, (last_hidden, last_cell) = exact(x, (hidden[None], cell[None]))
    theirs = y, last_hidden[0], last_cell[0]
    sum((a * b).sum() for a, b in zip(theirs, wanted, strict=True)).backward()

    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), other, atol=4e-3, rtol=8e-3)
    for mine, other in zip(found, (x, hidden, cell, *exact.parameters()), strict=True):
        assert (mine - other.grad).norm() < 5e-3 * other.grad.norm()


def test_threads_and_company_change_no_bits() -> None:
    """Rows are shared out among threads; a row's state and gradient are its own."""
    torch.manual_seed(0)
    weights = tuple(nn.LSTM(64, 128, batch_first=True).all_weights[0])
    x_BTE, hidden_BH, cell_BH = inputs(24, 40, 64, 128)

    y_BTH, _, last_BH = lstm_layer.lstm_layer(x_BTE, hidden_BH, cell_BH, weights)
    (together,) = torch.autograd.grad(y_BTH.float().square().sum() + last_BH.sum(), hidden_BH)
    for rows in (slice(0, 1), slice(5, 12), slice(20, 24)):
        alone = lstm_layer.lstm_layer(x_BTE[rows], hidden_BH[rows], cell_BH[rows], weights)
        loss = alone[0].float().square().sum() + alone[2].sum()

        assert torch.equal(alone[0], y_BTH[rows])
        assert torch.equal(alone[2], last_BH[rows])
        assert torch.equal(torch.autograd.grad(loss, hidden_BH)[0][rows], together[rows])


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_model_trains_through_them_as_through_torch(
    num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lstm_layer, "LEAST_WIDTH", 32)
    torch.manual_seed(0)
    config = ModelConfig(
        family="lstm", vocab_size=9, embedding_size=8, hidden_size=32, num_layers=num_layers
    )
    model, ids_BT = RecurrentModel(config), torch.randint(0, 9, (4, 20))

    gradients = []
    for mode in (True, False):
        model.train(mode).zero_grad()
        logits_BTV, state = model(ids_BT, model.initial_state(4))
        logits_BTV.logsumexp(-1).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])

        assert state["cell"].shape == (4, num_layers, 32)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() < 2e-2 * theirs.norm()


def test_other_sizes_are_torchs() -> None:
    assert lstm_layer.is_fitting(64, 384)
    assert not lstm_layer.is_fitting(64, 400)
    assert not lstm_layer.is_fitting(64, 256)  # torch's layer is faster there
    assert not lstm_layer.is_fitting(63, 384)
