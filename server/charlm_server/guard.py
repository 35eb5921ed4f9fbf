"""Stands before every method when tokens are asked for: who calls, may they, not too often."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Any

import grpc

from charlm_server.callers import PRESENT, Callers
from charlm_server.errors import Unauthenticated

SCHEME = "bearer "
OPEN_SERVICES = {"grpc.health.v1.Health"}  # probes carry no token, and learn no more than health
# A service that is not named here needs a known token of whatever role: it only tells.
ROLE_OF_SERVICE = {
    "charlm.v1.AdminService": "admin",
    "charlm.v1.CodecService": "score",
    "charlm.v1.GenerationService": "generate",
    "charlm.v1.InferenceService": "score",
    "charlm.v1.ScoringService": "score",
    "charlm.v1.StateService": "state",
}


class Guard(grpc.aio.ServerInterceptor):
    """Comes after the reporting interceptor, which tells callers why they are refused."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        service = handler_call_details.method.split("/")[1]
        if handler is None or service in OPEN_SERVICES:
            return handler
        return self._guarded(handler, ROLE_OF_SERVICE.get(service))

    def _guarded(self, handler: Any, role: str | None) -> Any:
        kinds: dict[tuple[bool, bool], tuple[Any, Callable[..., Any]]] = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        method, handler_of = kinds[handler.request_streaming, handler.response_streaming]

        async def guarded(request: Any, context: Any) -> Any:
            with self._calling(context, role):
                return await method(request, context)

        async def guarded_stream(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._calling(context, role):
                async with aclosing(method(request, context)) as responses:
                    async for response in responses:
                        yield response

        return handler_of(
            guarded_stream if handler.response_streaming else guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _calling(self, context: Any, role: str | None) -> AbstractContextManager[None]:
        caller = self._callers.caller(token_of(context))
        PRESENT.set(caller.name)  # each call runs in a task, and so in a context, of its own
        return caller.calling(role, time.monotonic())


def token_of(context: Any) -> str:
    """What the call's metadata carry. Raises Unauthenticated."""
    for key, value in context.invocation_metadata() or ():
        if key == "authorization" and value[: len(SCHEME)].lower() == SCHEME:
            return str(value[len(SCHEME) :]).strip()
    raise Unauthenticated
