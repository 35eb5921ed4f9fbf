"""Which device trains: a GPU where there is one, else the processor."""

from __future__ import annotations

import re
import warnings

import torch

from charlm_training.errors import InvalidOption

CPU = torch.device("cpu")
CHOICES = "auto, cpu, cuda or cuda:N"


def is_name(name: str) -> bool:
    """Whether a device can be asked for by that name."""
    return re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name) is not None


def device_named(name: str, *, number_on_host: int = 0) -> torch.device:
    """The device; of several processes on one host each takes the GPU of its own number.

    Raises InvalidOption where there is no such device.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not num_gpus):
        return CPU
    if not num_gpus:
        raise InvalidOption(
            f"--device is {name}, but torch {torch.__version__} finds no GPU here; train with "
            "--device cpu, or install the torch that is built for this GPU's driver."
        )
    number = int(name.partition(":")[2] or number_on_host)
    if number >= num_gpus:
        raise InvalidOption(
            f"GPU {number} is wanted, but this host has {num_gpus}, the first of them number 0; "
            "start one process for each, or train with --device cpu."
        )
    return ready(torch.device("cuda", number))


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
