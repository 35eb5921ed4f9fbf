"""One replica: an app without a port, with a method for every RPC, as Ray's proxy calls them."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2

from charlm_server.app import ADMIN, SERVICES, App, interceptors_of
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import load_models
from charlm_server.rpc.in_process import CallContext, InProcessServer

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
# Ray finds methods by name alone, so no two services may share one; a test checks this.
METHODS: list[MethodDescriptor] = [
    method for service in (*SERVICES, ADMIN, HEALTH) for method in service.methods
]


class ReplicaUnhealthy(Exception):
    """Raised to make Ray replace this replica."""


@dataclass(frozen=True)
class Refusal:
    """Takes the place of a response to a failed call; the status is in the context."""

    def SerializeToString(self) -> bytes:  # Ray looks the method up by this name
        return b""


class RayContext(CallContext):
    """A call's context that also writes to Ray's, which goes back with the response.

    The deadline stays with Ray's proxy, which cancels the call when it passes.
    """

    def __init__(self, carried: Any) -> None:
        super().__init__(carried.invocation_metadata(), peer=carried.peer())
        self._carried = carried

    def set_code(self, code: grpc.StatusCode) -> None:
        super().set_code(code)
        self._carried.set_code(code)

    def set_details(self, details: str) -> None:
        super().set_details(details)
        self._carried.set_details(details)

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        super().set_trailing_metadata(metadata)
        self._carried.set_trailing_metadata(list(self.trailing_metadata()))  # Ray takes a list only


class Replica:
    """Models in a process of Ray's, which stops it after its calls end or the grace runs out."""

    async def __init__(self, config: ServeConfig) -> None:  # type: ignore[misc] # Ray awaits it
        self.server = InProcessServer(interceptors_of(config))
        self._app = App(config, load_models(config), self.server)
        self._app.begin()

    def check_health(self) -> None:
        """Ray calls this every few seconds, and replaces a replica that raises."""
        if not self._app.health.is_serving(""):
            raise ReplicaUnhealthy("an engine is stuck; the log has the details")


def _rpc(method: MethodDescriptor) -> Any:
    path = f"/{method.containing_service.full_name}/{method.name}"

    async def answer(self: Replica, request: Any, grpc_context: Any) -> Any:
        try:
            return await self.server.unary(path, request, RayContext(grpc_context))
        except grpc.aio.AioRpcError:
            return Refusal()

    async def answers(self: Replica, request: Any, grpc_context: Any) -> AsyncIterator[Any]:
        try:
            context = RayContext(grpc_context)
            async with aclosing(self.server.stream(path, request, context)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AioRpcError:
            yield Refusal()

    return answers if method.server_streaming else answer


for _method in METHODS:
    setattr(Replica, _method.name, _rpc(_method))
