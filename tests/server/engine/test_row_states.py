"""Rows stay where they are, and each is what it would be in memory of its own."""

from collections.abc import Callable

import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.state import State
from charlm_server.engine.row_states import RowStates

Read = Callable[[int], State]


@pytest.fixture(params=["gru", "transformer"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    torch.manual_seed(1)
    sizes = {"vocab_size": 11, "embedding_size": 6, "hidden_size": 16, "context_length": 40}
    return build(ModelConfig(family=request.param, num_layers=2, num_heads=2, **sizes)).eval()


@pytest.fixture
def read(model: LanguageModel) -> Read:
    def read(length: int) -> State:
        ids_1T = torch.arange(length)[None] * 3 % 11
        return model.advance(ids_1T, model.initial_state(1))[1]

    return read


def are_equal(one: State, other: State) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.tensors.items())


@pytest.mark.parametrize("before", [0, 5, 33, 100])
@pytest.mark.parametrize("after", [1, 17, 100])
def test_a_reused_row_starts_clean(
    model: LanguageModel, read: Read, before: int, after: int
) -> None:
    memory = RowStates(model, 2)
    if before:
        memory.put(1, read(before))

    memory.put(1, read(after))
    assert are_equal(memory.row(1), read(after))
    assert are_equal(memory.row(0), model.initial_state(1))

    memory.put(1, None)
    assert are_equal(memory.row(1), model.initial_state(1))


def test_new_rows_are_at_the_start_of_a_text(model: LanguageModel, read: Read) -> None:
    memory = RowStates(model, 1)
    memory.put(0, read(7))
    memory.resize(3)
    memory.put(2, read(50))
    where = memory.state["position" if "position" in memory.state.tensors else "hidden"].data_ptr()

    memory.resize(1)
    memory.resize(3)

    assert are_equal(memory.row(0), read(7))
    assert are_equal(memory.row(1), model.initial_state(1))
    assert are_equal(memory.row(2), model.initial_state(1))
    assert where in {tensor.data_ptr() for tensor in memory.state.tensors.values()}


def test_a_model_may_return_a_state_in_other_memory(model: LanguageModel, read: Read) -> None:
    memory = RowStates(model, 3)
    memory.put(0, read(7))
    memory.resize(1)
    memory.state = read(9)

    memory.resize(3)

    assert are_equal(memory.row(0), read(9))
    assert are_equal(memory.row(2), model.initial_state(1))
