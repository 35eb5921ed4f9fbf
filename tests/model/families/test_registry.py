"""Promises of every family: forward equals T steps, and the exact path is batch invariant."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.families.registry import FAMILIES, build, restore
from charlm_model.language_model import LanguageModel
from charlm_model.state import concat_rows

MakeModel = Callable[..., LanguageModel]
NEURAL = [family for family in FAMILIES if family != "ngram"]
# Widths that fill vector registers and widths that do not.
WIDTHS = [
    *((family, width) for family in FAMILIES for width in (8, 24, 32, 40)),
    *((family, width) for family in ("rnn", "gru", "lstm") for width in (5, 18, 36)),
]


def some_ids(rows: int, length: int, vocab_size: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(rows * 1000 + length)
    return torch.randint(0, vocab_size, (rows, length), generator=generator)


def stepped(model: LanguageModel, ids_BT: Tensor) -> Tensor:
    state = model.initial_state(len(ids_BT))
    logits = []
    for ids_B in ids_BT.T:
        logits_BV, state = model.step(ids_B, state)
        logits.append(logits_BV)
    return torch.stack(logits, 1)


def advanced(model: LanguageModel, ids_BT: Tensor) -> Tensor:
    return model.advance(ids_BT, model.initial_state(len(ids_BT)))[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_equals_t_steps(family: str, make_model: MakeModel) -> None:
    model, ids_BT = make_model(family), some_ids(3, 20)

    forward, _ = model(ids_BT, model.initial_state(3))

    torch.testing.assert_close(forward, stepped(model, ids_BT), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("family", "width"), WIDTHS)
def test_advance_is_t_steps_bit_for_bit(family: str, width: int, make_model: MakeModel) -> None:
    model, ids_BT = make_model(family, hidden_size=width), some_ids(3, 90)

    assert torch.equal(advanced(model, ids_BT), stepped(model, ids_BT))


@pytest.mark.parametrize(("family", "width"), WIDTHS)
def test_batching_changes_nothing(family: str, width: int, make_model: MakeModel) -> None:
    """A row has the same bits alone and at any index of any batch."""
    model, ids_BT = make_model(family, hidden_size=width), some_ids(33, 12)
    alone = [advanced(model, ids_BT[row : row + 1])[0] for row in range(33)]

    for rows in (2, 5, 8, 17, 33):
        together = advanced(model, ids_BT[:rows])
        assert all(torch.equal(together[row], alone[row]) for row in range(rows))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_cutting_a_text_changes_nothing(family: str, cuts: list[int]) -> None:
    model = restore_seeded(family)
    ids_BT = some_ids(2, sum(cuts))
    state, pieces = model.initial_state(2), []

    for piece in ids_BT.split(cuts, dim=1):
        logits_BTV, state = model.advance(piece, state)
        pieces.append(logits_BTV)

    assert torch.equal(torch.cat(pieces, 1), advanced(model, ids_BT))


def restore_seeded(family: str) -> LanguageModel:
    """The fixture's model, for tests that hypothesis calls many times."""
    torch.manual_seed(1)
    config = ModelConfig(
        family=family, vocab_size=11, hidden_size=8, num_heads=2, context_length=5, num_layers=2
    )
    return build(config).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_come_and_go(family: str, make_model: MakeModel) -> None:
    """Selecting, joining and overwriting rows of a state changes no row's results."""
    model, ids_BT = make_model(family), some_ids(4, 16)
    whole = advanced(model, ids_BT)
    _, first = model.advance(ids_BT[:3, :9], model.initial_state(3))
    _, other = model.advance(ids_BT[3:, :9], model.initial_state(1))

    mixed = concat_rows([other, first.select_rows([2, 0])])
    after, _ = model.advance(ids_BT[[3, 2, 0], 9:], mixed.clone())
    mixed.put_row(1, first.select_rows([1]))
    replaced, _ = model.advance(ids_BT[[3, 1, 0], 9:], mixed)

    assert torch.equal(after, whole[[3, 2, 0], 9:])
    assert torch.equal(replaced, whole[[3, 1, 0], 9:])


@pytest.mark.parametrize("family", FAMILIES)
def test_reset_rows_start_a_new_text(family: str, make_model: MakeModel) -> None:
    model, ids_BT = make_model(family), some_ids(2, 10)
    _, state = model.advance(ids_BT, model.initial_state(2))

    state = model.reset_rows(state, torch.tensor([True, False]))
    after, _ = model.advance(ids_BT, state)

    assert torch.equal(after[0], advanced(model, ids_BT)[0])
    assert not torch.equal(after[1], advanced(model, ids_BT)[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_restored_from_its_tensors(family: str, make_model: MakeModel) -> None:
    model, ids_BT = make_model(family), some_ids(2, 10)

    again = restore(model.config, model.state_dict()).eval()

    assert torch.equal(advanced(again, ids_BT), advanced(model, ids_BT))


@pytest.mark.parametrize("family", NEURAL)
def test_windows_with_carried_state_equal_one_forward(family: str, make_model: MakeModel) -> None:
    model, ids_BT = make_model(family), some_ids(3, 30)
    whole, _ = model(ids_BT, model.initial_state(3))

    first, state = model(ids_BT[:, :13], model.initial_state(3))
    second, _ = model(ids_BT[:, 13:], state.detach())

    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", NEURAL)
def test_training_changes_the_exact_path_too(family: str, make_model: MakeModel) -> None:
    """The packed weights of the exact path are never stale."""
    model, ids_BT = make_model(family), some_ids(2, 6)
    before = advanced(model, ids_BT)

    model.train()
    logits_BTV, _ = model(ids_BT, model.initial_state(2))
    logits_BTV.square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    model.eval()

    forward, _ = model(ids_BT, model.initial_state(2))
    assert not torch.equal(advanced(model, ids_BT), before)
    torch.testing.assert_close(advanced(model, ids_BT), forward, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", NEURAL)
def test_the_past_matters_and_the_future_does_not(family: str, make_model: MakeModel) -> None:
    model, ids_BT = make_model(family), some_ids(1, 10)
    changed = ids_BT.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11

    logits, other = advanced(model, ids_BT)[0], advanced(model, changed)[0]

    assert torch.equal(logits[:5], other[:5])
    assert not torch.equal(logits[6], other[6])


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"mamba.*ngram, rnn, gru, lstm, transformer"):
        build(ModelConfig(family="mamba", vocab_size=5))
