"""Which models a GPU can compute, and by which arithmetic."""

import functools
import importlib.util

import torch

from charlm_model.errors import DeviceUnavailable
from charlm_model.language_model import LanguageModel

_FAMILIES_ON_GPU = ("gru", "lstm", "rnn", "transformer")


def on_device(model: LanguageModel, device: torch.device) -> LanguageModel:
    """The model there; families without kernels for a GPU stay on the processor.

    Raises DeviceUnavailable without Triton.
    """
    if device.type == "cpu" or model.config.family not in _FAMILIES_ON_GPU:
        return model
    if importlib.util.find_spec("triton") is None:
        raise DeviceUnavailable("Serving on a GPU needs Triton: run pip install triton.")
    from charlm_model.gpu.model import GpuModel  # only where it is used

    return GpuModel(model, device)


@functools.cache
def arithmetic_of(device: torch.device) -> str:
    """What the bits of a GPU's results depend on, beside the model; of any use only there."""
    from triton import __version__ as triton_version

    name = torch.cuda.get_device_name(device).replace(" ", "-")
    major, minor = torch.cuda.get_device_capability(device)
    return f"{name}/sm_{major}{minor}/triton-{triton_version}"
