"""Texts and bytes from files and the standard input."""

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charlm_client.errors import InvalidRequest

PIECE_BYTES = 1 << 16


def read(text: str) -> str:
    """A text argument; `-` reads the standard input. Raises InvalidRequest unless it is UTF-8."""
    return _decoded(sys.stdin.buffer.read(), "The standard input") if text == "-" else text


def read_file(path: Path) -> str:
    try:
        return _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes; `-` is the standard input."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None
    with file:
        yield file


def text_pieces(file: BinaryIO) -> Iterator[bytes]:
    """The text of a file of any size in pieces, without byte order mark and carriage returns."""
    held = file.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8)
    is_at_end = False
    while not is_at_end:
        piece = file.read(PIECE_BYTES)
        is_at_end = not piece
        data = (held + piece).replace(b"\r\n", b"\n")
        held = b"\r" if data.endswith(b"\r") and piece else b""  # its line feed may come next
        yield data.removesuffix(held)


def _decoded(data: bytes, name: str) -> str:
    """A text as training reads one: strictly, without byte order mark and carriage returns."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name} is not UTF-8: byte {error.start} starts no character."
        ) from None
