"""What every command does around its question: connect, ask, read what `-` and files stand for."""

import asyncio
import codecs
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, TypeVar

from charlm_client.client import Client
from charlm_client.errors import InvalidRequest, QueueFull
from charlm_client.security import Security

PIECE_BYTES = 1 << 16

Result = TypeVar("Result")
SECURITY: ContextVar[Security | None] = ContextVar("SECURITY", default=None)
"""What the flags before the command said; see `connection_flags`."""


def ask(
    server: str,
    timeout: float,
    question: Callable[[Client], Awaitable[Result]],
    *,
    may_repeat: bool = True,
) -> Result:
    """The answer to one question, over a connection of its own.

    A server that is too busy for it is asked again when it said, as long as the time allows.
    """

    async def asking() -> Result:
        hear_signals()
        give_up_at = time.monotonic() + timeout
        async with Client(server, timeout_s=timeout, security=SECURITY.get()) as client:
            while True:
                try:
                    return await question(client)
                except QueueFull as full:
                    if not may_repeat or time.monotonic() + full.retry_after_s >= give_up_at:
                        raise
                    print(f"charlm: waiting: {full}", file=sys.stderr)
                    await asyncio.sleep(full.retry_after_s)

    return asyncio.run(asking())


def hear_signals() -> None:
    """Let every signal wake the running loop, if it is that of the main thread.

    `asyncio.run` is told of Ctrl-C when the loop goes on, and one that is just falling asleep would
    sleep through it. A handler for any signal at all makes all of them wake the loop.
    """
    # Windows, where they do so anyway; another thread, which hears of none.
    with suppress(AttributeError, NotImplementedError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, lambda: None)


def read(text: str) -> str:
    """A text argument; `-` stands for the standard input."""
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
    """A text as `read_file` reads one, whatever its size: no byte order mark, plain line ends."""
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
