"""Where a model computes: on the processor or on a GPU; served there, by kernels for its family."""

import re

import torch

from charlm_model.errors import DeviceUnavailable

CPU = torch.device("cpu")


def is_device_name(name: str) -> bool:
    """Whether a device may be called so, wherever it is."""
    return re.fullmatch(r"cpu|cuda(:\d{1,3})?", name) is not None


def device_named(name: str, *, number: int = 0) -> torch.device:
    """The device that is called so: cpu, cuda:1, or cuda, which is the GPU of that number.

    Raises DeviceUnavailable where this machine has none.
    """
    if not is_device_name(name):
        raise DeviceUnavailable(f"There is no device {name!r}: give cpu, cuda, or cuda:1.")
    if name == "cpu":
        return CPU
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not num_gpus:
        raise DeviceUnavailable(
            f"The device is to be {name}, but torch {torch.__version__} finds no GPU here; take "
            "cpu, or install the torch that is built for this GPU's driver."
        )
    number = int(name.partition(":")[2] or number)
    if number >= num_gpus:
        raise DeviceUnavailable(
            f"GPU {number} is wanted, but this host has {num_gpus}, the first of them number 0."
        )
    return torch.device("cuda", number)
