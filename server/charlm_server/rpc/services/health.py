"""grpc.health.v1: whether the server, a service or a model is ready, once or on every change.

Names: "" for the server, "charlm.v1.GenerationService" for a service, "models/{model}" for a model.
"""

from __future__ import annotations  # gRPC's context is generic for type checkers only

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Replaces the packaged servicer, which holds a lock while it writes to a watcher: one slow
    watcher would block every change."""

    def __init__(self, names: Iterable[str]) -> None:
        self._statuses = dict.fromkeys(["", *names], NOT_SERVING)
        self._changed = asyncio.Event()

    def is_serving(self, name: str) -> bool:
        return bool(self._statuses[name] == SERVING)

    def set_all(self, *, is_serving: bool) -> None:
        for name in list(self._statuses):
            self.set(name, is_serving=is_serving)

    def set(self, name: str, *, is_serving: bool) -> None:
        """Change one status and notify its watchers."""
        self._statuses[name] = SERVING if is_serving else NOT_SERVING
        self._notify_watchers()

    def forget(self, name: str) -> None:
        """Remove the name and notify its watchers."""
        self._statuses.pop(name, None)
        self._notify_watchers()

    def _notify_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ],
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._statuses:
            known = ", ".join(repr(name) for name in self._statuses)
            sentence = f"No service {request.service!r} is known; known: {known}."
            await context.abort(grpc.StatusCode.NOT_FOUND, sentence)
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def List(
        self,
        request: health_pb2.HealthListRequest,
        context: grpc.aio.ServicerContext[
            health_pb2.HealthListRequest, health_pb2.HealthListResponse
        ],
    ) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status)
                for name, status in self._statuses.items()
            }
        )

    async def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.aio.ServicerContext[
            health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        ],
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now, and again whenever it has changed."""
        told = None
        while True:
            changed = self._changed  # first, or a change could be missed
            status = self._statuses.get(request.service, SERVICE_UNKNOWN)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            await changed.wait()
