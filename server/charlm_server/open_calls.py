"""Bounds the calls that are open at the same time, of all connections together."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from charlm_server.overload_errors import TooManyCalls
from charlm_server.refusing import refusing

UNCOUNTED = "/grpc.health.v1.Health/"  # a server that is full is not ill


class OpenCalls(grpc.aio.ServerInterceptor):
    """Comes after the reporting interceptor, which tells callers why they are refused."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def num(self) -> int:
        return len(self._tasks)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        if not handler_call_details.method.startswith(UNCOUNTED):
            if self.num >= self._limit:
                return refusing(TooManyCalls(self._limit))
            self._count_until_done()
        return await continuation(handler_call_details)

    def _count_until_done(self) -> None:
        task = asyncio.current_task()  # gRPC runs every call in a task of its own
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
