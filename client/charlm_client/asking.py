"""What every command does around its question: connect, ask, read what `-` and files stand for."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from charlm_client.client import Client
from charlm_client.errors import InvalidRequest
from charlm_client.security import Security

Result = TypeVar("Result")
SECURITY: ContextVar[Security | None] = ContextVar("SECURITY", default=None)
"""What the flags before the command said; see `connection_flags`."""


def ask(server: str, timeout: float, question: Callable[[Client], Awaitable[Result]]) -> Result:
    """The answer to one question, over a connection of its own."""

    async def asking() -> Result:
        async with Client(server, timeout_s=timeout, security=SECURITY.get()) as client:
            return await question(client)

    return asyncio.run(asking())


def read(text: str) -> str:
    """A text argument; `-` stands for the standard input."""
    return _decoded(sys.stdin.buffer.read(), "The standard input") if text == "-" else text


def read_file(path: Path) -> str:
    try:
        return _decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None


def _decoded(data: bytes, name: str) -> str:
    """A text as training reads one: strictly, without byte order mark and carriage returns."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name} is not UTF-8: byte {error.start} starts no character."
        ) from None
