"""A run of a few steps on a few words, as the tests of resuming make it."""

from pathlib import Path
from typing import Any

from charlm_training.monitoring.events import Listener
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.run.run import Run, RunOutcome
from charlm_training.run.workspace import Workspace

TEXT = "the cat sat on the mat.\nthe dog sat on the cat.\n" * 30
SIZES = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "batch_size": 4, "window_length": 16}


class Killed(BaseException):
    """Stands for the end of a process, which nothing inside it can handle."""


def options(folder: Path, **changes: Any) -> TrainOptions:
    corpus = folder / "text.txt"
    corpus.write_text(TEXT)
    size = SizeOptions(**{**SIZES, **changes.pop("size", {})})
    defaults = {"corpus": str(corpus), "out": folder / "out", "steps": 24, "save_interval_s": 0.0}
    return TrainOptions(**{**defaults, "size": size, **changes})


def train(given: TrainOptions, clock: Any, listener: Listener) -> RunOutcome:
    Workspace(given.out).prepare(force=False, resume=given.resume)
    return Run(given, listener, lambda: False, clock).train()


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()
