"""Muon's step goes equally far in every direction of a matrix, block by block."""

import copy

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.layers.mixed_precision import has_fast_bfloat16
from charlm_training.optim import muon
from charlm_training.optim.muon import Muon
from charlm_training.optim.optimizer import Optimizer


def direction(gradient_GMN: torch.Tensor) -> torch.Tensor:
    """Where a first step goes, in units of its rate."""
    _, M, N = gradient_GMN.shape
    parameter = torch.nn.Parameter(torch.zeros_like(gradient_GMN).flatten(0, 1))
    parameter.grad = gradient_GMN.flatten(0, 1).clone()
    optimizer = Muon([parameter], block_rows=M, weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    return -parameter.detach().view(gradient_GMN.shape) / max(1.0, M / N) ** 0.5


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8), (3, 16, 16), (2, 4, 12), (2, 12, 4), (3, 32, 32), (2, 64, 32), (1, 32, 96)],
)
def test_singular_values_come_close_to_one(shape: tuple[int, ...]) -> None:
    """A range of 1 : 200 becomes the band that three best quintics can promise, around one."""
    torch.manual_seed(0)
    u_GMK, values_GK, v_GKN = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread_K = torch.logspace(0.0, -2.3, values_GK.shape[1])

    found_GK = torch.linalg.svdvals(direction(7 * u_GMK * spread_K @ v_GKN))

    assert found_GK.min() > 0.17
    assert found_GK.max() < 1.9


def test_the_directions_are_those_of_the_decomposition() -> None:
    torch.manual_seed(0)
    block_MN = torch.randn(6, 10)
    u, _, vh = torch.linalg.svd(block_MN, full_matrices=False)

    found_MN = direction(block_MN[None])[0]

    # Every direction keeps its axes; its length is only about 1.
    along = u.T @ found_MN @ vh.T
    assert (along - torch.diag(along.diagonal())).abs().max() < 0.1


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this processor has no products of bfloat16")
@pytest.mark.parametrize("shape", [(192, 64), (192, 32), (64, 256), (32, 96)])
def test_kernels_and_plain_products_agree(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over steps with momentum, of several blocks and of one, up to the rounding of either."""
    torch.manual_seed(0)
    start_MN, gradients = torch.randn(shape), torch.randn(3, *shape)

    def after_steps() -> torch.Tensor:
        parameter = torch.nn.Parameter(start_MN.clone())
        optimizer = Muon([parameter], block_rows=64, weight_decay=0.5)
        optimizer.param_groups[0]["lr"] = 0.1
        for gradient_MN in gradients:
            parameter.grad = gradient_MN.clone()
            optimizer.step()
            assert torch.equal(parameter.grad, gradient_MN)
        momentum: torch.Tensor = optimizer.state[parameter]["momentum"]
        return torch.stack([parameter.detach(), momentum])

    ours = after_steps()
    monkeypatch.setattr(muon, "has_fast_bfloat16", lambda *_: False)
    monkeypatch.setattr(muon, "has_bfloat16_kernels", lambda *_: False)
    theirs = after_steps()

    torch.testing.assert_close(ours[1], theirs[1])
    moved = theirs[0] - start_MN
    assert (ours[0] - theirs[0]).norm() < 0.02 * moved.norm()


def test_stacked_blocks_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    stacked = torch.nn.Parameter(torch.randn(12, 4))
    single = torch.nn.Parameter(stacked.detach()[4:8].clone())
    gradient = torch.randn(12, 4)
    gradient[:4] *= 1000
    stacked.grad, single.grad = gradient, gradient[4:8].clone()

    for parameter in (stacked, single):
        optimizer = Muon([parameter], block_rows=4, weight_decay=0.0)
        optimizer.param_groups[0]["lr"] = 0.1
        optimizer.step()

    torch.testing.assert_close(stacked[4:8], single, atol=1e-2, rtol=0)


def tiny_lstm() -> LanguageModel:
    torch.manual_seed(0)
    return build(ModelConfig(family="lstm", vocab_size=5, hidden_size=8, embedding_size=4))


def with_gradients(model: LanguageModel, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def test_only_matrices_between_hidden_layers_belong_to_muon() -> None:
    optimizer = Optimizer(tiny_lstm(), muon_rate=5.0, weight_decay=0.0)

    state = optimizer.state_dict()

    assert len(state["muon"]["param_groups"][0]["params"]) == 2  # input and hidden weights
    assert sum(len(group["params"]) for group in state["adamw"]["param_groups"]) == 5


def test_without_muon_everything_is_adamw() -> None:
    optimizer = Optimizer(tiny_lstm(), muon_rate=0.0, weight_decay=0.0)

    assert set(optimizer.state_dict()) == {"adamw"}


@pytest.mark.parametrize("muon_rate", [0.0, 5.0])
def test_a_restored_optimizer_makes_the_same_steps(muon_rate: float) -> None:
    model = tiny_lstm()
    optimizer = Optimizer(model, muon_rate=muon_rate, weight_decay=0.1)
    with_gradients(model, 1)
    optimizer.set_rate(0.01)
    optimizer.step(1.0)
    twin = tiny_lstm()
    twin.load_state_dict(model.state_dict())
    restored = Optimizer(twin, muon_rate=muon_rate, weight_decay=0.1)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))

    for either, part in ((model, optimizer), (twin, restored)):
        with_gradients(either, 2)
        part.set_rate(0.02)
        part.step(1.0)

    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(twin.named_parameters())[name])


def test_the_norm_before_clipping_is_returned() -> None:
    model = tiny_lstm()
    with_gradients(model, 1)
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()

    found = Optimizer(model, muon_rate=5.0, weight_decay=0.0).step(1.0)

    assert found == pytest.approx(float(norm), rel=1e-5)
