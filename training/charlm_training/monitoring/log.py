"""Writes the events of a run to disk: JSON lines always, TensorBoard on request."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from charlm_model.atomic_files import write_bytes
from charlm_training.errors import NotPossible, OutputFailed
from charlm_training.monitoring.events import Evaluated, Event, Progressed, Resumed, Sampled

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class JsonLog:
    """One JSON object a line, each with the name of its event; complete after every line."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab" if resume else "wb", buffering=0)
        except OSError as error:
            raise _unwritten(path, error) from error
        self._path = path

    def __call__(self, event: Event) -> None:
        record = {"event": type(event).__name__.lower(), **_finite(asdict(event))}
        try:
            if isinstance(event, Resumed):
                self._forget_after(event.step)
            self._append(json.dumps(record, ensure_ascii=False) + "\n")
        except OSError as error:
            raise _unwritten(self._path, error) from error

    def _append(self, line: str) -> None:
        """Write the whole line or, on a full disk, none of it."""
        data, whole = line.encode(), os.fstat(self._file.fileno()).st_size
        while data:
            try:
                data = data[self._file.write(data) :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(whole)
                raise

    def _forget_after(self, step: int) -> None:
        """Remove the lines of later steps, and a line that a killed process left incomplete."""
        lines = self._path.read_text(encoding="utf-8").split("\n")
        kept = "".join(f"{line}\n" for line in lines if _step_of(line) <= step)
        self._file.close()
        write_bytes(self._path, kept.encode())
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        with suppress(OSError):  # a failed write was reported when it happened
            self._file.close()


class TensorBoardLog:
    """Curves and samples for TensorBoard."""

    def __init__(self, directory: Path) -> None:
        self._writer = _summary_writer()(log_dir=str(directory))

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progressed):
            self._scalars("train", event.step, loss_nats=event.loss_nats)
            self._scalars("train", event.step, learning_rate=event.learning_rate)
            self._scalars("train", event.step, gradient_norm=event.gradient_norm)
            self._scalars("train", event.step, characters_per_s=event.characters_per_s)
        elif isinstance(event, Evaluated):
            self._scalars("validation", event.step, bits_per_character=event.bits_per_character)
        elif isinstance(event, Sampled):
            self._writer.add_text("sample", event.text, event.step)

    def close(self) -> None:
        self._writer.close()

    def _scalars(self, group: str, step: int, **values: float) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)


def _summary_writer() -> Callable[..., SummaryWriter]:
    """Imported on request, because TensorBoard is an optional extra."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise NotPossible(
            "--tensorboard needs TensorBoard, which is not installed. "
            "Run: pip install 'charlm[tensorboard]'"
        ) from error
    return SummaryWriter


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line).get("step", 0))
    except ValueError:
        return math.inf


def _unwritten(path: Path, error: OSError) -> OutputFailed:
    return OutputFailed(f"Cannot write the log {path}: {error.strerror}.")


def _finite(record: dict[str, object]) -> dict[str, object]:
    """JSON has no NaN or infinity, and a diverged run has both: they become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }
