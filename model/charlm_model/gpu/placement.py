"""Places a model on a GPU, and names the arithmetic of its results.

Machines without a GPU lack Triton, so `gpu.model`, which needs it, is imported on demand.
"""

import functools
import importlib.util
import platform

import torch

from charlm_model.devices import CPU
from charlm_model.errors import DeviceUnavailable
from charlm_model.kernels.cpu import ARITHMETIC
from charlm_model.language_model import LanguageModel

_FAMILIES_ON_GPU = ("gru", "lstm", "rnn", "transformer")


def on_device(model: LanguageModel, device: torch.device) -> LanguageModel:
    """The model on the device; families without GPU kernels stay on the CPU.

    Raises DeviceUnavailable without Triton.
    """
    if device.type == "cpu" or model.config.family not in _FAMILIES_ON_GPU:
        return model
    if importlib.util.find_spec("triton") is None:
        raise DeviceUnavailable("Serving on a GPU needs Triton: run pip install triton.")
    from charlm_model.gpu.model import GpuModel  # needs Triton

    return GpuModel(model, device)


@functools.cache  # may be called for every message of a stream
def numerics_id(device: torch.device = CPU) -> str:
    """Names everything that the bits of a result depend on beside the checkpoint.

    On a CPU that is the kernels' arithmetic and the architecture: IEEE 754 fixes the rest, though
    only x86-64 was tested (docs/determinism.md).
    """
    kernels = f"charlm-{ARITHMETIC}/{platform.machine()}"
    return kernels if device == CPU else f"{kernels}/{_arithmetic_of_gpu(device)}"


def _arithmetic_of_gpu(device: torch.device) -> str:
    from triton import __version__ as triton_version

    name = torch.cuda.get_device_name(device).replace(" ", "-")
    major, minor = torch.cuda.get_device_capability(device)
    return f"torch-{torch.__version__}/{name}/sm_{major}{minor}/triton-{triton_version}"
