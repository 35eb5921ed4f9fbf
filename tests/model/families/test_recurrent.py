"""The written-out cells agree with torch, and share its checkpoint layout."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from charlm_model.config import ModelConfig
from charlm_model.families.recurrent import RecurrentModel
from charlm_model.language_model import LanguageModel
from charlm_model.layers.recurrent_cells import CELLS

MakeModel = Callable[..., LanguageModel]
TORCH_CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


@pytest.mark.parametrize("family", CELLS)
def test_a_cell_agrees_with_torch(family: str) -> None:
    theirs = TORCH_CELLS[family](3, 5).double()
    x_BE = torch.randn(2, 3, dtype=torch.float64)
    state = tuple(torch.randn(2, 5, dtype=torch.float64) for _ in CELLS[family].state_names)

    from_input = nn.functional.linear(x_BE, theirs.weight_ih, theirs.bias_ih)
    from_hidden = nn.functional.linear(state[0], theirs.weight_hh, theirs.bias_hh)
    ours = CELLS[family].step(from_input, from_hidden, state)

    expected = theirs(x_BE, state if family == "lstm" else state[0])
    torch.testing.assert_close(ours, expected if family == "lstm" else (expected,))


@pytest.mark.parametrize("family", CELLS)
def test_the_layout_is_torchs(family: str, make_model: MakeModel) -> None:
    """The tensors of a checkpoint load into torch's own module under their own names."""
    model = make_model(family)
    theirs = CELLS[family].fused(6, 8, 2, batch_first=True)

    names = {name.removeprefix("recurrent."): tensor for name, tensor in model.state_dict().items()}
    theirs.load_state_dict({name: names[name] for name in theirs.state_dict()})

    ids_BT = torch.tensor([[1, 2, 3]])
    expected, _ = theirs(model.embedding(ids_BT))
    logits, _ = model.advance(ids_BT, model.initial_state(1))
    torch.testing.assert_close(logits, model.head(expected), atol=1e-5, rtol=1e-5)


def test_states_are_named() -> None:
    lstm = RecurrentModel(ModelConfig(family="lstm", vocab_size=5, hidden_size=4, num_layers=3))

    state = lstm.initial_state(2)

    assert set(state.tensors) == {"hidden", "cell"}
    assert state["cell"].shape == (2, 3, 4)
    assert state.num_bytes_per_row == 2 * 3 * 4 * 4


def test_a_new_lstm_has_forget_bias_1() -> None:
    """Forget gates open at first: a bias of 1."""
    lstm = RecurrentModel(ModelConfig(family="lstm", vocab_size=5, hidden_size=4))

    assert torch.equal(lstm.recurrent.bias_ih_l0[4:8], torch.ones(4))
    gates = lstm.recurrent.weight_hh_l0.detach().split(4)
    for gate_HH in gates:
        torch.testing.assert_close(gate_HH @ gate_HH.T, torch.eye(4), atol=1e-5, rtol=0)


def test_dropout_applies_only_in_training() -> None:
    torch.manual_seed(0)
    model = RecurrentModel(ModelConfig(family="gru", vocab_size=5, hidden_size=16, dropout=0.5))
    ids_BT = torch.tensor([[1, 2, 3]])

    first, _ = model(ids_BT, model.initial_state(1))
    second, _ = model(ids_BT, model.initial_state(1))
    model.eval()
    third, _ = model(ids_BT, model.initial_state(1))
    fourth, _ = model(ids_BT, model.initial_state(1))

    assert not torch.equal(first, second)
    assert torch.equal(third, fourth)
