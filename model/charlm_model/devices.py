"""Names of devices: the CPU, or one of several GPUs."""

import re

import torch

from charlm_model.errors import DeviceUnavailable

CPU = torch.device("cpu")


def is_device_name(name: str) -> bool:
    """Whether this is a valid name, whether or not this machine has the device."""
    return re.fullmatch(r"cpu|cuda(:\d{1,3})?", name) is not None


def device_named(name: str, *, number: int = 0) -> torch.device:
    """The device of a name: cpu, cuda:1, or cuda, which is GPU `number`.

    Raises DeviceUnavailable if this machine lacks it.
    """
    if not is_device_name(name):
        raise DeviceUnavailable(f"The device {name!r} is unknown: use cpu, cuda, or cuda:1.")
    if name == "cpu":
        return CPU
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not num_gpus:
        raise DeviceUnavailable(
            f"The device is {name}, but torch {torch.__version__} finds no GPU. Use cpu, or "
            "install a torch that is built for this GPU's driver."
        )
    number = int(name.partition(":")[2] or number)
    if number >= num_gpus:
        raise DeviceUnavailable(
            f"The device is cuda:{number}, but this host has {num_gpus} GPUs, numbered from 0."
        )
    return torch.device("cuda", number)
