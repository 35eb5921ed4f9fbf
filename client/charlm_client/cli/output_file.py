"""Files that commands write: complete or absent, and never overwritten without --force."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charlm_client.errors import InvalidRequest


def check_writable(path: Path, *, force: bool) -> None:
    """Raises InvalidRequest for a path that `written` would refuse, before any work is done."""
    if str(path) == "-":
        return
    if path.is_dir():
        raise InvalidRequest(f"{path} is a directory; name a file to write.")
    if path.is_file() and not force:
        raise InvalidRequest(f"{path} exists; name another file, or overwrite it with --force.")
    if not path.resolve().parent.is_dir():
        raise InvalidRequest(f"{path} cannot be written: its directory does not exist.")


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block succeeds; `-` is the standard output.

    Raises InvalidRequest when it cannot be written.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if path.exists() and not path.is_file():  # a device or a pipe is not replaced
            with path.open("wb") as file:
                yield file
        else:
            yield from _replaced(path.resolve())
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}.") from None


def _replaced(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
