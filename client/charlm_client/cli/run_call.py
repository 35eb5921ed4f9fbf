"""One call to a server: connect, call, and retry while the server is too busy."""

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

from charlm_client.cli.flag_errors import COMMON, Flags, about_flag
from charlm_client.client import Client
from charlm_client.errors import InvalidRequest, QueueFull
from charlm_client.security import Security

Result = TypeVar("Result")


SECURITY: ContextVar[Security | None] = ContextVar("SECURITY", default=None)


def run_call(
    server: str,
    timeout: float,
    call: Callable[[Client], Awaitable[Result]],
    *,
    flags: Flags = COMMON,
    may_retry: bool = True,
) -> Result:
    """The result of one call, over a connection of its own.

    A call that finds the queue full is retried after the delay that the server named, unless the
    timeout, in seconds, would pass first. Where a field of the request is refused, the error names
    its flag, from `flags`.
    """

    async def connected() -> Result:
        wake_loop_on_signals()
        give_up_at = time.monotonic() + timeout
        async with Client(server, timeout_s=timeout, security=SECURITY.get()) as client:
            while True:
                try:
                    return await call(client)
                except QueueFull as full:
                    if not may_retry or time.monotonic() + full.retry_after_s >= give_up_at:
                        raise
                    print(f"charlm: waiting: {full}", file=sys.stderr)
                    await asyncio.sleep(full.retry_after_s)

    try:
        return asyncio.run(connected())
    except InvalidRequest as error:
        raise about_flag(error, flags) from error


def wake_loop_on_signals() -> None:
    """Let signals wake the running loop, if it runs in the main thread.

    `asyncio.run` handles Ctrl-C when the loop next runs, and a loop that has just begun to wait
    would miss it. Installing a handler for any signal makes all signals wake the loop.
    """
    # Windows, where signals wake the loop anyway; other threads, which get no signals.
    with suppress(AttributeError, NotImplementedError, RuntimeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, lambda: None)


async def chosen_model(client: Client, model: str) -> str:
    """The model that was named, or the only one."""
    return model or await client.only_model()
