"""Where a served model computes: on the processor, or on a GPU by kernels for its family."""

import importlib.util

import torch

from charlm_model.errors import DeviceUnavailable
from charlm_model.language_model import LanguageModel

CPU = torch.device("cpu")
_FAMILIES_ON_GPU = ("gru", "lstm", "rnn", "transformer")


def device_named(name: str) -> torch.device:
    """The device that is called so: cpu, cuda, or cuda:1. Raises DeviceUnavailable."""
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (":" in name and not (kind == "cuda" and index.isdecimal())):
        raise DeviceUnavailable(f"There is no device {name!r}: give cpu, cuda, or cuda:1.")
    if kind == "cpu":
        return CPU
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(index or 0)
    if number >= num_devices:
        raise DeviceUnavailable(
            f"There is no device {name}: torch {torch.__version__} finds {num_devices} GPUs here."
        )
    if importlib.util.find_spec("triton") is None:
        raise DeviceUnavailable("Serving on a GPU needs Triton: run pip install triton.")
    return torch.device("cuda", number)


def on_device(model: LanguageModel, device: torch.device) -> LanguageModel:
    """The model there; families without kernels for a GPU stay on the processor."""
    if device.type == "cpu" or model.config.family not in _FAMILIES_ON_GPU:
        return model
    from charlm_model.gpu.model import GpuModel  # only where it is used: it needs Triton

    return GpuModel(model, device)


def arithmetic_of(device: torch.device) -> str:
    """What the bits of a GPU's results depend on, beside the model; of any use only there."""
    from triton import __version__ as triton_version

    name = torch.cuda.get_device_name(device).replace(" ", "-")
    major, minor = torch.cuda.get_device_capability(device)
    return f"{name}/sm_{major}{minor}/triton-{triton_version}"
