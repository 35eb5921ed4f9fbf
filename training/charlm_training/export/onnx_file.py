"""A step program as an ONNX file, and the reference interpreter that checks it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from charlm_training.errors import NotPossible
from charlm_training.export.step_program import StepProgram


def onnx_bytes(made: StepProgram) -> bytes:
    """Raises NotPossible when the libraries for it are not installed."""
    _require()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not missed
    names = list(made.state_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch
        program = torch.onnx.export(
            made.program,
            dynamo=True,
            verbose=False,
            input_names=["ids", *names],
            output_names=["logits", *(f"{name}_after" for name in names)],
        )
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def onnx_step(data: bytes) -> Callable[..., tuple[Tensor, ...]]:
    """The file run by ONNX's reference interpreter."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    evaluator = ReferenceEvaluator(model)
    names = [each.name for each in model.graph.input]

    def step(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = (each.detach().numpy() for each in inputs)
        outputs = evaluator.run(None, dict(zip(names, arrays, strict=True)))
        return tuple(torch.from_numpy(each) for each in outputs)

    return step


def _require() -> None:
    """Raises NotPossible without ONNX, an optional extra."""
    try:
        import onnx
        import onnxscript

        del onnx, onnxscript
    except ImportError as error:
        raise NotPossible(
            "--format onnx needs ONNX, which is not installed. Run: pip install 'charlm[export]'"
        ) from error
