"""Writes an exported model with everything needed to run it, after checking its log-probs.

A directory for transformers (see `hf`), or one step:

model.pt2 or model.onnx   ids (rows,) and state in, logits (rows, V) and the state after out
export.json               names, shapes and types of the state, and how to begin
vocabulary.json           which character is which id
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from charlm_model.atomic_files import json_bytes, write_bytes
from charlm_model.checkpoint import PIECES, VOCABULARY, Checkpoint
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_training.errors import InvalidOption, NotPossible, OutputFailed
from charlm_training.export.hf import hf_files
from charlm_training.export.onnx_file import onnx_bytes, onnx_step
from charlm_training.export.step_program import StepProgram, step_program
from charlm_training.report.tables import make_directory

Step = Callable[..., tuple[Tensor, ...]]
FORMATS = ("torch-export", "onnx", "hf")
# The exported step adds up in another order than the exact path does.
TOLERANCE_NATS = 1e-3
# And transformers keeps keys and values in float32, where a state holds bfloat16.
HF_TOLERANCE_NATS = 2e-2


def export(checkpoint: Checkpoint, format_name: str, out: Path) -> float:
    """Returns the largest difference to the recorded log-probs of the checkpoint, in nats.

    Raises NotPossible where it cannot be exported, or would compute something else.
    """
    if format_name not in FORMATS:
        raise InvalidOption(f"--format is {format_name!r}; it must be one of {', '.join(FORMATS)}.")
    golden = checkpoint.report["golden"]
    if format_name == "hf":
        files, logprobs = hf_files(checkpoint)
        pairs = zip(logprobs, golden["logprobs"], strict=True)
        worst = max(abs(computed - float(recorded)) for computed, recorded in pairs)
        _require_close(worst, HF_TOLERANCE_NATS)
    else:
        made = step_program(checkpoint.model)
        data, step = _torch_export(made) if format_name == "torch-export" else _onnx(made)
        worst = difference(step, made.initial, golden)
        _require_close(worst, TOLERANCE_NATS)
        name = "model.pt2" if format_name == "torch-export" else "model.onnx"
        files = {name: data, **_companions(made, checkpoint)}
    _write(out, files)
    return worst


def _require_close(worst: float, allowed: float) -> None:
    if not worst <= allowed:
        raise NotPossible(
            f"The exported model differs by {worst:.2g} nats from the checkpoint (allowed: "
            f"{allowed}); nothing was written."
        )


@torch.no_grad()
def difference(step: Step, initial: tuple[Tensor, ...], golden: dict[str, list[Any]]) -> float:
    """Steps through the recorded tokens and compares every log-prob."""
    state, worst = initial, 0.0
    read = [END_OF_TEXT_ID, *golden["ids"][:-1]]
    for token_id, wanted, expected in zip(read, golden["ids"], golden["logprobs"], strict=True):
        logits_1V, *after = step(torch.tensor([token_id]), *state)
        logprob = float(logits_1V[0].double().log_softmax(-1)[wanted])
        worst, state = max(worst, abs(logprob - expected)), tuple(after)
    return worst


def description(made: StepProgram, checkpoint: Checkpoint) -> dict[str, Any]:
    """A description for programs in other languages."""
    return {
        "inputs": ["ids", *made.state_names],
        "outputs": ["logits", *(f"{name}_after" for name in made.state_names)],
        "state": {
            name: {"shape": ["rows", *each.shape[1:]], "dtype": str(each.dtype)[6:], "begin": 0}
            for name, each in zip(made.state_names, made.initial, strict=True)
        },
        "end_of_text_id": END_OF_TEXT_ID,
        "how": "Begin with zeros and the end of text; then feed every token, one at a time.",
        "config": checkpoint.config.to_json(),
        "digest": checkpoint.digest,
    }


def _torch_export(made: StepProgram) -> tuple[bytes, Step]:
    buffer = io.BytesIO()
    torch.export.save(made.program, buffer)
    buffer.seek(0)
    loaded: Step = torch.export.load(buffer).module()
    return buffer.getvalue(), loaded


def _onnx(made: StepProgram) -> tuple[bytes, Step]:
    data = onnx_bytes(made)
    return data, onnx_step(data)


def _companions(made: StepProgram, checkpoint: Checkpoint) -> dict[str, bytes]:
    """What stands beside a step: how to run it, and what its ids mean."""
    files = {
        "export.json": json_bytes(description(made, checkpoint)),
        VOCABULARY: json_bytes(checkpoint.vocabulary.to_json()),
    }
    if isinstance(checkpoint.vocabulary, SentencePieceVocabulary):
        files[PIECES] = checkpoint.vocabulary.serialized_model
    return files


def _write(out: Path, files: dict[str, bytes]) -> None:
    make_directory(out)
    try:
        for name, data in files.items():
            write_bytes(out / name, data)
    except OSError as error:
        raise OutputFailed(f"Cannot write the export in {out}: {error.strerror}.") from error
