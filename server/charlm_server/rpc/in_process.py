"""The handlers of a server that has no port: calls come to it one by one, from elsewhere."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple, NoReturn, Protocol

import grpc


class Carried(Protocol):
    """What came along with a call, and what goes back with its answer."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]: ...
    def peer(self) -> str: ...
    def set_code(self, code: grpc.StatusCode) -> None: ...
    def set_details(self, details: str) -> None: ...
    def set_trailing_metadata(self, metadata: list[tuple[str, str | bytes]]) -> None: ...


class CallContext:
    """What servicers and interceptors want of gRPC's context, over what was carried."""

    def __init__(self, carried: Carried) -> None:
        self._carried = carried

    def __getattr__(self, name: str) -> Any:
        return getattr(self._carried, name)

    def time_remaining(self) -> None:
        """The deadline stays with whoever took the call; when it passes, the call is cancelled."""

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """gRPC takes any sequence, and Ray a list."""
        self._carried.set_trailing_metadata(list(metadata))

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        self._carried.set_code(code)
        self._carried.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise grpc.aio.AbortError


class Handlers:
    """Takes services as a grpc.aio.Server does, and calls to them as methods of its own."""

    def __init__(self, interceptors: Iterable[grpc.aio.ServerInterceptor]) -> None:
        self._interceptors = list(interceptors)
        self._services: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._services += handlers

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Generated code says the same a second time, for servers that look up faster."""

    async def stop(self, grace: float | None) -> None:
        """Nothing to close."""

    async def answer(self, method: str, request: Any, carried: Carried) -> Any:
        """The response. Raises grpc.aio.AbortError, with what to tell in `carried`."""
        handler = await self._handler(method, carried)
        answering = _called(handler, request, carried)
        if not handler.response_streaming:
            return await answering
        async with aclosing(answering) as responses:  # an interceptor's, to refuse the call
            return await anext(responses)

    async def answers(
        self, method: str, request: Any, carried: Carried
    ) -> AsyncGenerator[Any, None]:
        """The responses, one after the other. Raises as `answer` does."""
        handler = await self._handler(method, carried)
        async with aclosing(_called(handler, request, carried)) as responses:
            async for response in responses:
                yield response

    async def _handler(self, method: str, carried: Carried) -> Any:
        async def look_up(details: grpc.HandlerCallDetails) -> Any:
            found = (service.service(details) for service in self._services)
            return next(handler for handler in found if handler is not None)

        chain: Any = look_up
        for interceptor in reversed(self._interceptors):
            chain = _around(interceptor, chain)
        return await chain(_Details(method, tuple(carried.invocation_metadata())))


def _called(handler: Any, request: Any, carried: Carried) -> Any:
    """What the handler's method gives; a handler has one method, named after its kind."""
    methods = (
        handler.unary_unary,
        handler.unary_stream,
        handler.stream_unary,
        handler.stream_stream,
    )
    (method,) = filter(None, methods)
    return method(request, CallContext(carried))


class _Details(NamedTuple):
    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


def _around(interceptor: grpc.aio.ServerInterceptor, inner: Any) -> Any:
    async def intercepted(details: grpc.HandlerCallDetails) -> Any:
        return await interceptor.intercept_service(inner, details)

    return intercepted
