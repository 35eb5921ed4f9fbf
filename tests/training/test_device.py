"""Which device trains, and that it is made ready; `tests/model` asks what devices are there."""

import pytest
import torch

from charlm_model.devices import CPU
from charlm_training.device import described, training_device
from charlm_training.errors import InvalidOption
from charlm_training.planning.options import TrainOptions


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A host with two GPUs; collects which one is made torch's own."""
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    return devices


def test_the_processor_trains_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert training_device("auto") == CPU
    assert described(CPU) == "cpu"


@pytest.mark.parametrize(
    ("name", "local_rank", "index"), [("auto", 0, 0), ("cuda", 1, 1), ("cuda:1", 0, 1)]
)
def test_a_gpu_is_taken_by_its_number(
    name: str, local_rank: int, index: int, taken: list[torch.device]
) -> None:
    device = training_device(name, local_rank=local_rank)

    assert device == torch.device("cuda", index)
    assert taken == [device]
    assert not torch.backends.cudnn.allow_tf32


def test_the_processor_may_be_asked_for_beside_a_gpu(taken: list[torch.device]) -> None:
    assert training_device("cpu") == CPU
    assert not taken


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", ""])
def test_a_misspelled_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match="--device is"):
        TrainOptions(corpus="text", out=None, device=name)  # type: ignore[arg-type]  # unused
