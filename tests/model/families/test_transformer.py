"""The window, the ring and rotary positions."""

from collections.abc import Callable

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.families.transformer import Transformer
from charlm_model.language_model import LanguageModel

MakeModel = Callable[..., LanguageModel]


def test_attention_sees_only_the_window(make_model: MakeModel) -> None:
    """With one layer a token `context_length` positions back has no effect; a nearer one has."""
    model = make_model("transformer", num_layers=1, kernel_size=1, pair_rows=0)
    ids_BT = torch.arange(12)[None] % 11
    older, newer = ids_BT.clone(), ids_BT.clone()
    older[0, 6], newer[0, 7] = 0, 0

    logits = [
        model.advance(ids, model.initial_state(1))[0][0, -1] for ids in (ids_BT, older, newer)
    ]

    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_positions_are_relative(make_model: MakeModel) -> None:
    """The same window later in a text gives the same logits, up to the rounding of keys."""
    model = make_model("transformer", num_layers=1, kernel_size=1, pair_rows=0)
    window = torch.tensor([[3, 1, 4, 1, 5]])
    far = torch.cat([torch.zeros(1, 10_000, dtype=torch.long), window], 1)

    near, _ = model.advance(window, model.initial_state(1))
    late, _ = model.advance(far, model.initial_state(1))

    torch.testing.assert_close(near[:, -1], late[:, -1], atol=2e-3, rtol=2e-3)


def test_the_state_never_grows(make_model: MakeModel) -> None:
    model = make_model("transformer")
    fresh = model.initial_state(1)

    _, state = model.advance(torch.zeros(1, 500, dtype=torch.long), model.initial_state(1))

    assert state.num_bytes_per_row == fresh.num_bytes_per_row
    assert state["keys"].shape[2:] == (1, 2, 4, 16)  # 5 slots fill a vector
    assert state["position"].tolist() == [500]


def test_rows_at_different_positions_share_a_batch(make_model: MakeModel) -> None:
    model = make_model("transformer")
    ids_BT = torch.randint(0, 11, (2, 100))
    _, early = model.advance(ids_BT[:1, :3], model.initial_state(1))
    _, late = model.advance(ids_BT[1:, :90], model.initial_state(1))
    expected = [
        model.advance(ids_BT[:1, 3:10], early.clone())[0],
        model.advance(ids_BT[1:, 90:97], late.clone())[0],
    ]

    both = model.initial_state(2)
    both.put_row(0, early)
    both.put_row(1, late)
    together, _ = model.advance(torch.cat([ids_BT[:1, 3:10], ids_BT[1:, 90:97]]), both)

    assert torch.equal(together, torch.cat(expected))


def test_a_new_layer_is_the_identity() -> None:
    """Output projections are initialized to 0."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(family="transformer", vocab_size=5, hidden_size=8, num_heads=2))

    assert not model.blocks[0].attention_out.weight.any()
    assert not model.blocks[0].down.weight.any()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InvalidConfig, match=r"hidden_size is 24.*multiple of 4 \* num_heads = 16"):
        Transformer(ModelConfig(family="transformer", vocab_size=5, hidden_size=24, num_heads=4))
