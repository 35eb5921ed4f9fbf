"""Names of devices, and models on another device: no tensor may stay on the CPU.

The meta device has shapes and no numbers; like any device it refuses tensors of another.
"""

import importlib.util
from collections.abc import Callable

import pytest
import torch

from charlm_model.devices import CPU, device_named
from charlm_model.errors import DeviceUnavailable
from charlm_model.gpu.placement import on_device
from charlm_model.language_model import LanguageModel
from charlm_model.layers.mixed_precision import bfloat16_matmuls, has_fast_bfloat16
from charlm_model.state import State

MakeModel = Callable[..., LanguageModel]
FAMILIES = ("rnn", "gru", "lstm", "transformer")
META = torch.device("meta")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("name", "number", "device"),
    [("cpu", 1, CPU), ("cuda", 0, torch.device("cuda", 0)), ("cuda", 1, torch.device("cuda", 1)),
     ("cuda:1", 0, torch.device("cuda", 1))],
)  # fmt: skip
def test_a_device_is_found_by_its_name(name: str, number: int, device: torch.device) -> None:
    assert device_named(name, number=number) == device


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("name", "number"), [("cuda:2", 0), ("cuda", 2)])
def test_more_gpus_than_there_are_are_refused(name: str, number: int) -> None:
    with pytest.raises(DeviceUnavailable, match="The device is cuda:2, but this host has 2"):
        device_named(name, number=number)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceUnavailable, match=r"finds no GPU\. Use cpu"):
        device_named("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:1234", "CUDA", ""])
def test_a_misspelled_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceUnavailable, match="use cpu, cuda, or cuda:1"):
        device_named(name)


@pytest.mark.parametrize(("family", "device"), [("lstm", CPU), ("ngram", torch.device("cuda", 0))])
def test_models_without_kernels_for_a_device_stay(
    family: str, device: torch.device, make_model: MakeModel
) -> None:
    model = make_model(family)

    assert on_device(model, device) is model


def test_a_gpu_without_triton_is_refused(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(DeviceUnavailable, match="pip install triton"):
        on_device(make_model("lstm"), torch.device("cuda", 0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("training", [True, False])
def test_forward_runs_on_the_device_of_the_weights(
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
def test_the_initial_state_is_on_the_device_of_the_weights(
    family: str, make_model: MakeModel
) -> None:
    model = make_model(family).to(META)

    assert model.device == META
    assert {each.device for each in model.initial_state(2).tensors.values()} == {META}


def test_on_cpu_returns_a_cpu_model_itself(make_model: MakeModel) -> None:
    model = make_model("ngram")

    assert model.device.type == "cpu"
    assert model.on_cpu() is model


def test_a_state_moves_to_a_device() -> None:
    state = State({"hidden": torch.ones(2, 3)})

    assert state.to(META)["hidden"].is_meta
    assert state.to(torch.device("cpu"))["hidden"] is state["hidden"]


def test_bfloat16_matmuls_are_not_for_every_device() -> None:
    assert not has_fast_bfloat16(META)
    with bfloat16_matmuls(True, META):
        assert not torch.is_autocast_enabled("cpu")
