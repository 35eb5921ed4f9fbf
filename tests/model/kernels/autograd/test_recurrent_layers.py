"""The training kernels of GRU and LSTM layers agree with torch, up to bfloat16."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from charlm_model.config import ModelConfig
from charlm_model.families.recurrent import RecurrentModel
from charlm_model.kernels.autograd.gru import gru_layer
from charlm_model.kernels.autograd.lstm import lstm_layer
from charlm_model.kernels.autograd.packing import supports_sizes
from charlm_model.layers.mixed_precision import has_fast_bfloat16

pytestmark = pytest.mark.skipif(
    not has_fast_bfloat16(), reason="this processor has no products of bfloat16"
)
# Rows that fill tiles and rows that do not; a single step; inputs narrower than a vector.
SIZES = [(16, 9, 64, 96), (5, 7, 6, 32), (3, 1, 2, 32), (13, 4, 32, 64)]
Layer = Callable[..., tuple[Tensor, ...]]
# Ours, torch's, and how many tensors are carried from step to step.
LAYERS = [
    pytest.param(gru_layer, nn.GRU, 1, id="gru"),
    pytest.param(lstm_layer, nn.LSTM, 2, id="lstm"),
]


def rounded(module: nn.RNNBase) -> nn.RNNBase:
    """Weights that bfloat16 holds exactly."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.bfloat16())
    return module


def inputs(B: int, T: int, E: int, H: int, num_carried: int) -> list[Tensor]:
    carried = [torch.rand(B, H) - 0.5, torch.randn(B, H)][:num_carried]
    return [each.bfloat16().float().requires_grad_() for each in (torch.randn(B, T, E), *carried)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("layer", "kind", "num_carried"), LAYERS)
def test_outputs_and_gradients_agree_with_torch(
    layer: Layer, kind: type[nn.RNNBase], num_carried: int, size: tuple[int, int, int, int]
) -> None:
    torch.manual_seed(1)
    (B, T, E, H), kind_of_size = size, {"input_size": size[2], "hidden_size": size[3]}
    module = rounded(kind(**kind_of_size, batch_first=True))  # type: ignore[arg-type]
    given = inputs(B, T, E, H, num_carried)
    wanted = [torch.randn(B, T, H), *torch.randn(num_carried, B, H)]

    ours = layer(*given, tuple(module.all_weights[0]))
    sum((a.float() * b).sum() for a, b in zip(ours, wanted, strict=True)).backward()
    found = [each.grad.double() for each in (*given, *module.parameters())]

    exact = kind(**kind_of_size, batch_first=True).double()  # type: ignore[arg-type]
    exact.load_state_dict(module.state_dict())
    x, *carried = (each.detach().double().requires_grad_() for each in given)
    before = [each[None] for each in carried]
    y, after = exact(x, tuple(before) if num_carried > 1 else before[0])
    theirs = y, *(each[0] for each in (after if num_carried > 1 else (after,)))
    sum((a * b).sum() for a, b in zip(theirs, wanted, strict=True)).backward()

    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), other, atol=4e-3, rtol=8e-3)
    for mine, other in zip(found, (x, *carried, *exact.parameters()), strict=True):
        assert (mine - other.grad).norm() < 5e-3 * other.grad.norm()


@pytest.mark.parametrize(("layer", "kind", "num_carried"), LAYERS)
def test_threads_and_batch_change_no_bits(
    layer: Layer, kind: type[nn.RNNBase], num_carried: int
) -> None:
    """Threads split the rows; a row's state and gradient do not depend on the others."""
    torch.manual_seed(0)
    weights = tuple(kind(64, 128, batch_first=True).all_weights[0])  # type: ignore[arg-type]
    given = inputs(24, 40, 64, 128, num_carried)
    hidden_BH = given[1]

    y_BTH, *_, last_BH = layer(*given, weights)
    (together,) = torch.autograd.grad(y_BTH.float().square().sum() + last_BH.sum(), hidden_BH)
    for rows in (slice(0, 1), slice(5, 12), slice(20, 24)):
        y, *_, last = layer(*(each[rows] for each in given), weights)
        loss = y.float().square().sum() + last.sum()

        assert torch.equal(y, y_BTH[rows])
        assert torch.equal(last, last_BH[rows])
        assert torch.equal(torch.autograd.grad(loss, hidden_BH)[0][rows], together[rows])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("family", ["gru", "lstm"])
def test_a_model_trains_as_with_torch_layers(family: str, num_layers: int) -> None:
    torch.manual_seed(0)
    config = ModelConfig(
        family=family, vocab_size=9, embedding_size=8, hidden_size=32, num_layers=num_layers
    )
    model, ids_BT = RecurrentModel(config), torch.randint(0, 9, (4, 20))

    gradients = []
    for mode in (True, False):
        model.train(mode).zero_grad()
        logits_BTV, state = model(ids_BT, model.initial_state(4))
        logits_BTV.logsumexp(-1).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])

        assert state["hidden"].shape == (4, num_layers, 32)
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() < 2e-2 * theirs.norm()


def test_other_sizes_use_torch() -> None:
    assert supports_sizes(64, 384)
    assert not supports_sizes(64, 400)
    assert not supports_sizes(63, 384)
