"""Which device trains: the processor, or a GPU made ready for it."""

from __future__ import annotations

import warnings

import torch

from charlm_model.devices import CPU, device_named, is_device_name

AUTO = "auto"
CHOICES = "cpu, cuda, cuda:N or auto"


def is_choice(name: str) -> bool:
    """Whether `charlm train` can be asked for it."""
    return name == AUTO or is_device_name(name)


def training_device(name: str, *, local_rank: int = 0) -> torch.device:
    """The device; of several processes on one host each takes the GPU of its own number.

    Raises DeviceUnavailable where there is no such device.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = device_named(name, number=local_rank)
    return device if device == CPU else ready(device)


def ready(device: torch.device) -> torch.device:
    """The GPU, made the one that torch takes, with products in float32 as exact as float32 is."""
    torch.cuda.set_device(device)
    # In training they are cast for every step, and so laid out anew in any case.
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
    torch.backends.cudnn.allow_tf32 = False  # evaluation would lose the third decimal
    return device


def described(device: torch.device) -> str:
    """For a report."""
    if device.type == "cpu":
        return "cpu"
    return f"{device.type}, {torch.cuda.get_device_name(device)}"
