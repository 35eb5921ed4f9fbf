"""Stores the whole state of a training run on disk; a crash at any moment leaves one intact.

last/   state.json, tensors.safetensors, manifest.json with the SHA-256 of both
spare/  the same, as it was one save before
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from charlm_model.atomic_files import json_bytes, sync_directory
from charlm_training.errors import RunStateDamaged
from charlm_training.state_tree import flatten, unflatten

FORMAT_VERSION = 3
STATE, TENSORS, MANIFEST = "state.json", "tensors.safetensors", "manifest.json"
UNFINISHED = ".new-"


class RunStateStore:
    """Two generations of one run's state in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last, self._spare = directory / "last", directory / "spare"

    def exists(self) -> bool:
        return self._last.is_dir() or self._spare.is_dir()

    def save(self, value: dict[str, Any]) -> None:
        """Write the next generation. At every moment `last` or `spare` is complete.

        Raises OSError when it cannot be written; earlier files are untouched.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        fresh = Path(tempfile.mkdtemp(dir=self._directory, prefix=UNFINISHED))
        try:
            for name, data in _files_of(value).items():
                _write_synced(fresh / name, data)
            sync_directory(fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        if self._last.is_dir():
            shutil.rmtree(self._spare, ignore_errors=True)
            self._last.rename(self._spare)
        fresh.rename(self._last)
        sync_directory(self._directory)

    def load(self) -> tuple[dict[str, Any], list[str]] | None:
        """The newest complete generation, with notices for the user; None if there is no state.

        Raises RunStateDamaged when every generation is damaged.
        """
        if not self.exists():
            return None
        damages: list[str] = []
        for directory in (self._last, self._spare):
            try:
                return _read_checked(directory), damages
            except _Damaged as damage:
                if directory.is_dir():
                    damages.append(f"{damage} Training continues from the save before it.")
        raise RunStateDamaged(
            f"The training state in {self._directory} is damaged, and so is its spare. "
            "Train without --resume."
        )

    def clear(self) -> None:
        """Remove the state of a finished run."""
        doomed = self._directory.with_name(f".{self._directory.name}.old")
        shutil.rmtree(doomed, ignore_errors=True)
        if self._directory.is_dir():
            self._directory.rename(doomed)  # one atomic step: a crash never leaves half of it
        shutil.rmtree(doomed, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove the files of an interrupted save."""
        for unfinished in self._directory.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)


class _Damaged(Exception):
    """The files of one generation are not as they were written."""


def _files_of(value: dict[str, Any]) -> dict[str, bytes]:
    tensors: dict[str, Tensor] = {}
    files = {
        STATE: json_bytes({"format_version": FORMAT_VERSION, "state": flatten(value, tensors)})
    }
    files[TENSORS] = safetensors.torch.save(tensors)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return {**files, MANIFEST: json_bytes({"sha256": digests})}


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_checked(directory: Path) -> dict[str, Any]:
    try:
        files = {name: (directory / name).read_bytes() for name in (STATE, TENSORS, MANIFEST)}
        digests = json.loads(files[MANIFEST])["sha256"]
        for name in (STATE, TENSORS):
            if hashlib.sha256(files[name]).hexdigest() != digests[name]:
                raise _Damaged(f"{directory / name} is truncated or changed.")
        document = json.loads(files[STATE])
        if document["format_version"] != FORMAT_VERSION:
            raise _Damaged(f"{directory} was written by another version of charlm.")
        value: dict[str, Any] = unflatten(document["state"], safetensors.torch.load(files[TENSORS]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise _Damaged(f"{directory} cannot be read.") from error
    if not isinstance(value, dict):
        raise _Damaged(f"{directory} holds no training state.")
    return value
