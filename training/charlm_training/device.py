"""The device of a run: the processor, or a GPU that is configured for training."""

from __future__ import annotations

import warnings

import torch

from charlm_model.devices import CPU, device_named, is_device_name

AUTO = "auto"
CHOICES = "cpu, cuda, cuda:N or auto"


def is_choice(name: str) -> bool:
    """Whether `--device` takes this name."""
    return name == AUTO or is_device_name(name)


def training_device(name: str, *, local_rank: int = 0) -> torch.device:
    """The device of that name; each process of a host takes the GPU of its local rank.

    Raises DeviceUnavailable where there is no such device.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = device_named(name, number=local_rank)
    return device if device == CPU else ready(device)


def ready(device: torch.device) -> torch.device:
    """Make the GPU the current one, and turn TF32 off, so that products in float32 are exact."""
    torch.cuda.set_device(device)
    # Weights are cast for every step, so their layout changes in any case.
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
    torch.backends.cudnn.allow_tf32 = False  # with TF32, evaluation loses the third decimal
    return device


def described(device: torch.device) -> str:
    """The device as reports name it."""
    if device.type == "cpu":
        return "cpu"
    return f"{device.type}, {torch.cuda.get_device_name(device)}"
