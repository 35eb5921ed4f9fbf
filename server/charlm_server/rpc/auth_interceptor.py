"""Authentication: checks the token, role and quota of every call, when tokens are required."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from charlm_server.calls.callers import Callers
from charlm_server.errors.auth import Unauthenticated
from charlm_server.errors.base import CharlmError
from charlm_server.rpc.call_context import AuthenticatedHandler
from charlm_server.rpc.refusal import refusal_handler

SCHEME = "bearer "
OPEN_SERVICES = {"grpc.health.v1.Health"}  # probes carry no token, and learn no more than health
# A service that is not named here needs a known token of any role: it changes nothing.
ROLE_OF_SERVICE = {
    "charlm.v1.AdminService": "admin",
    "charlm.v1.CodecService": "score",
    "charlm.v1.GenerationService": "generate",
    "charlm.v1.InferenceService": "score",
    "charlm.v1.ScoringService": "score",
    "charlm.v1.StateService": "state",
}


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Runs inside the error interceptor, which reports refusals and unwraps the handler."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        # A path on the wire may lack the slash; it then names an unknown service.
        service = handler_call_details.method.lstrip("/").partition("/")[0]
        if service in OPEN_SERVICES:
            return await continuation(handler_call_details)
        try:
            caller = self._let_in(handler_call_details.invocation_metadata, service)
        except CharlmError as error:
            return refusal_handler(error)
        return AuthenticatedHandler(await continuation(handler_call_details), caller)

    def _let_in(self, metadata: Any, service: str) -> str:
        """The caller's name, found before the request is read.

        Raises Unauthenticated, NotAllowed or QuotaExceeded.
        """
        caller = self._callers.caller(token_of(metadata))
        caller.begin(ROLE_OF_SERVICE.get(service), time.monotonic())
        task = asyncio.current_task()  # gRPC runs every call in a task, and context, of its own
        assert task is not None
        task.add_done_callback(lambda _: caller.end())
        return caller.name


def token_of(metadata: Any) -> str:
    """The bearer token in the call's metadata. Raises Unauthenticated."""
    for key, value in metadata or ():
        if key == "authorization" and value[: len(SCHEME)].lower() == SCHEME:
            return str(value[len(SCHEME) :]).strip()
    raise Unauthenticated
