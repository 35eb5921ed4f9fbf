"""Models on a device: nothing of what they compute with may be left on the processor.

The meta device has shapes and no numbers; like any other it refuses tensors that lie elsewhere.
"""

from collections.abc import Callable

import pytest
import torch

from charlm_model.language_model import LanguageModel
from charlm_model.precision import half_products, has_fast_bfloat16
from charlm_model.state import State

MakeModel = Callable[..., LanguageModel]
FAMILIES = ("rnn", "gru", "lstm", "transformer")
META = torch.device("meta")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [True, False])
def test_a_window_is_computed_where_the_weights_are(
    family: str, training: bool, make_model: MakeModel
) -> None:
    model = make_model(family, dropout=0.5).to(META).train(training)
    ids_BT = torch.zeros(3, 7, dtype=torch.long, device=META)
    is_fresh_B = torch.zeros(3, dtype=torch.bool, device=META)

    before = model.reset_rows(model.initial_state(3), is_fresh_B)
    logits_BTV, after = model(ids_BT, before)

    assert logits_BTV.shape == (3, 7, 11)
    assert {tensor.device for tensor in after.tensors.values()} == {META}
    assert {name: each.shape for name, each in after.tensors.items()} == {
        name: each.shape for name, each in before.tensors.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_begins_where_the_weights_are(family: str, make_model: MakeModel) -> None:
    model = make_model(family).to(META)

    assert model.device == META
    assert {each.device for each in model.initial_state(2).tensors.values()} == {META}


def test_a_model_on_the_processor_is_its_own_copy_there(make_model: MakeModel) -> None:
    model = make_model("ngram")

    assert model.device.type == "cpu"
    assert model.on_cpu() is model


def test_a_state_goes_to_a_device() -> None:
    state = State({"hidden": torch.ones(2, 3)})

    assert state.to(META)["hidden"].is_meta
    assert state.to(torch.device("cpu"))["hidden"] is state["hidden"]


def test_half_products_are_not_for_every_device() -> None:
    assert not has_fast_bfloat16(META)
    with half_products(True, META):
        assert not torch.is_autocast_enabled("cpu")
