"""The training kernels of a Transformer block agree with torch, up to bfloat16."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from charlm_model.config import ModelConfig
from charlm_model.families.transformer import Transformer
from charlm_model.kernels.autograd import transformer_block
from charlm_model.layers.mixed_precision import has_fast_bfloat16

pytestmark = pytest.mark.skipif(
    not has_fast_bfloat16(), reason="this processor has no products of bfloat16"
)
# Width, heads, context, window: heads whose halves fill vectors or do not, windows shorter and
# longer than the context, lengths that fill tiles or do not.
SIZES = [(32, 1, 64, 16), (96, 2, 5, 40), (64, 2, 48, 13), (64, 1, 9, 1)]


def model_of(width: int, heads: int, context: int, *, dropout: float = 0.0) -> Transformer:
    torch.manual_seed(0)
    config = ModelConfig(
        family="transformer", vocab_size=11, hidden_size=width, num_layers=2, num_heads=heads,
        context_length=context, dropout=dropout,
    )  # fmt: skip
    model = Transformer(config).train()
    for name, parameter in model.named_parameters():
        if name.endswith(("attention_out.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.1)  # a new block is the identity
    return model


def learned(model: Transformer, length: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Logits, keys and gradients of the second of two windows; one row is reset between them."""
    torch.manual_seed(1)
    first_BT, second_BT = torch.randint(0, 11, (2, 3, length))
    _, state = model(first_BT, model.initial_state(3))
    state = model.reset_rows(state.detach(), torch.tensor([False, True, False]))
    logits_BTV, state = model(second_BT, state)
    loss = cross_entropy(logits_BTV.flatten(0, 1), first_BT.flatten())
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return logits_BTV.detach(), state["keys"].float(), list(gradients)


@pytest.mark.parametrize(("width", "heads", "context", "length"), SIZES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_agree_with_torch(
    width: int,
    heads: int,
    context: int,
    length: int,
    dropout: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch's path in float32; it draws its random numbers in the same order."""
    model = model_of(width, heads, context, dropout=dropout)

    ours = learned(model, length)
    monkeypatch.setattr("charlm_model.layers.mixed_precision.has_fast_bfloat16", lambda *_: False)
    theirs = learned(model, length)

    assert not torch.equal(ours[0], theirs[0])
    for mine, other in zip((*ours[:2], *ours[2]), (*theirs[:2], *theirs[2]), strict=True):
        assert (mine - other).norm() <= 2e-2 * other.norm()


def test_the_batch_changes_no_bits() -> None:
    model = model_of(64, 2, 24)
    ids_BT = torch.randint(0, 11, (9, 33))

    together, state = model(ids_BT, model.initial_state(9))
    alone, alone_state = model(ids_BT[4:6], model.initial_state(2))

    assert torch.equal(state["values"][4:6], alone_state["values"])
    torch.testing.assert_close(together[4:6], alone, atol=1e-2, rtol=1e-2)


def test_other_sizes_use_torch() -> None:
    assert transformer_block.supports_sizes(96, 2)
    assert not transformer_block.supports_sizes(64, 4)
    assert not transformer_block.supports_sizes(48, 1)
