"""Limits the open calls of all connections together."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from charlm_server.errors.overload import TooManyCalls
from charlm_server.rpc.refusal import refusal_handler

HEALTH, WATCH = "/grpc.health.v1.Health/", "/grpc.health.v1.Health/Watch"
Tasks = set[asyncio.Task[Any]]


class ConcurrencyInterceptor(grpc.aio.ServerInterceptor):
    """Runs inside the error interceptor, which reports refusals to callers.

    A full server is still healthy: Health.Check is not counted, and Health.Watch has a limit of
    its own, of the same size.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls: Tasks = set()
        self._watches: Tasks = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        tasks = self._watches if method == WATCH else self._calls
        if tasks is self._watches or not method.startswith(HEALTH):
            if len(tasks) >= self._limit:
                return refusal_handler(TooManyCalls(self._limit))
            _add_until_done(tasks)
        return await continuation(handler_call_details)


def _add_until_done(tasks: Tasks) -> None:
    task = asyncio.current_task()  # gRPC runs every call in a task of its own
    assert task is not None
    tasks.add(task)
    task.add_done_callback(tasks.discard)
