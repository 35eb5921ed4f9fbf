"""Writes rows of figures as CSV, and documents as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charlm_model.atomic_files import write_bytes, write_json
from charlm_training.errors import OutputFailed

Row = dict[str, Any]


def save_csv(rows: Sequence[Row], path: Path) -> None:
    """One line a row, under the names of the first row's columns."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _save(path, buffer.getvalue().encode())


def save_json(value: Any, path: Path) -> None:
    try:
        write_json(path, value)
    except OSError as error:
        raise OutputFailed(f"Cannot write {path}: {error.strerror}.") from error


def make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed(f"Cannot make the directory {path}: {error.strerror}.") from error


def _save(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as error:
        raise OutputFailed(f"Cannot write {path}: {error.strerror}.") from error
