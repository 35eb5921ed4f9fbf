"""A progress bar of a file while a command reads it."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

from charlm_client.cli.input_file import PIECE_BYTES


def progress_of_files() -> Progress:
    """Shown only on a terminal, and removed at the end."""
    out = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), SpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)


def size_of(path: Path) -> int | None:
    """Size in bytes; None for what has no size, such as a pipe."""
    return path.stat().st_size if path.is_file() else None


def watched(file: BinaryIO, path: Path, progress: Progress) -> Iterator[bytes]:
    """The bytes of the file; the bar advances when the next piece is requested."""
    task = progress.add_task("", total=size_of(path))
    while data := file.read(PIECE_BYTES):
        yield data
        progress.advance(task, len(data))
