"""Calls without a port: a server's services and interceptors, called in its own process.

    server = InProcessServer(interceptors)
    add_ScoringServiceServicer_to_server(servicer, server)   # any generated function

    context = CallContext(metadata=[("x-request-id", "7")], timeout_s=5.0)
    response = await server.unary("/charlm.v1.ScoringService/Score", request, context)
    async for response in server.stream("/charlm.v1.ScoringService/StreamScore", requests, context):
        ...

Requests and responses are messages, not bytes; a client stream is an asynchronous iterator of
messages. A call that fails raises grpc.aio.AioRpcError, as a stub's call does: it has the status
code, the sentence and the trailing metadata, from which grpc_status.rpc_status.from_call makes the
google.rpc.Status with its details.

Each call runs in a task of its own, as on a port, because the interceptors count a call as open
until its task ends. Cancelling the awaiting task, or closing the stream, cancels the call.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, NamedTuple, NoReturn

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]


class CallContext:
    """One call as servicers and interceptors see it through gRPC's ServicerContext.

    `timeout_s` counts from here; None is no deadline. After the call its status and trailing
    metadata are read from here too.
    """

    def __init__(
        self,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        *,
        peer: str = "in-process:",
        timeout_s: float | None = None,
    ) -> None:
        self._metadata, self._peer = tuple(metadata), peer
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._code, self._details, self._trailing = grpc.StatusCode.OK, "", Metadata()

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def peer(self) -> str:
        return self._peer

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, 0 after it; None if there is none."""
        return None if self._ends_at is None else max(self._ends_at - time.monotonic(), 0.0)

    def code(self) -> grpc.StatusCode:
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def details(self) -> str:
        return self._details

    def set_details(self, details: str) -> None:
        self._details = details

    def trailing_metadata(self) -> Metadata:
        return self._trailing

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailing = tuple(metadata)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """Raises grpc.aio.AbortError."""
        self.set_code(code)
        self.set_details(details)
        if trailing := tuple(trailing_metadata):
            self.set_trailing_metadata(trailing)
        raise grpc.aio.AbortError

    def error(self) -> grpc.aio.AioRpcError:
        """The status of a failed call, as a stub would raise it."""
        trailing = grpc.aio.Metadata(*self.trailing_metadata())
        return grpc.aio.AioRpcError(self.code(), grpc.aio.Metadata(), trailing, self.details())


class InProcessServer:
    """Takes services as grpc.aio.Server does. The first interceptor is the outermost."""

    def __init__(self, interceptors: Iterable[grpc.aio.ServerInterceptor] = ()) -> None:
        self._interceptors = list(interceptors)
        self._services: list[grpc.GenericRpcHandler] = []
        self._calls: set[asyncio.Task[Any]] = set()
        self._has_stopped = False

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        self._services += handlers

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Does nothing: generated code adds the same handlers twice, for a faster look-up."""

    async def stop(self, grace: float | None) -> None:
        """Refuse new calls, and cancel those that are open after `grace` seconds."""
        self._has_stopped = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace or 0)
        for task in self._calls:
            task.cancel()

    async def unary(self, method: str, request: Any, context: CallContext) -> Any:
        """The response of an RPC with one. `request` is a message, or an iterator of messages.

        Raises grpc.aio.AioRpcError.
        """
        return await self._start(self._answer(method, request, context), context)

    async def stream(
        self, method: str, request: Any, context: CallContext
    ) -> AsyncGenerator[Any, None]:
        """The responses of an RPC with many. Close it (aclose) to cancel the call early.

        The servicer runs at most one response ahead of the reader. Raises grpc.aio.AioRpcError.
        """
        responses = _Responses()
        answer = self._answer_stream(method, request, context, responses)
        task = self._start(answer, context)
        task.add_done_callback(responses.end)
        try:
            while (response := await responses.get()) is not None:
                yield response
            await task  # raises the call's error
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _start(self, answer: Coroutine[Any, Any, Any], context: CallContext) -> asyncio.Task[Any]:
        task = asyncio.create_task(self._run(answer, context))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _run(self, answer: Coroutine[Any, Any, Any], context: CallContext) -> Any:
        """The result of the handler, by the deadline. Raises grpc.aio.AioRpcError."""
        try:
            if self._has_stopped:
                answer.close()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "The server has stopped.")
            async with asyncio.timeout(context.time_remaining()):
                return await answer
        except TimeoutError:
            context.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
            context.set_details("Deadline Exceeded")
        except grpc.aio.AbortError:
            pass  # the code and details were set before it was raised
        raise context.error()

    async def _answer(self, method: str, request: Any, context: CallContext) -> Any:
        handler = await self._handler(method, context)
        answering = _method_of(handler)(request, context)
        if not handler.response_streaming:
            return await answering
        async with aclosing(answering) as responses:  # an interceptor's, which refuses the call
            return await anext(responses)

    async def _answer_stream(
        self, method: str, request: Any, context: CallContext, responses: "_Responses"
    ) -> None:
        handler = await self._handler(method, context)
        async with aclosing(_method_of(handler)(request, context)) as answering:
            async for response in answering:
                await responses.put(response)

    async def _handler(self, method: str, context: CallContext) -> Any:
        async def look_up(details: grpc.HandlerCallDetails) -> Any:
            found = (service.service(details) for service in self._services)
            return next((handler for handler in found if handler is not None), None)

        chain: Any = look_up
        for interceptor in reversed(self._interceptors):
            chain = _around(interceptor, chain)
        handler = await chain(_Details(method, context.invocation_metadata()))
        if handler is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        return handler


class _Responses:
    """From the call's task to the reader, one response ahead of it at most."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._is_taken = asyncio.Semaphore(1)

    async def put(self, response: Any) -> None:
        await self._is_taken.acquire()
        self._queue.put_nowait(response)

    def end(self, _task: asyncio.Task[Any]) -> None:
        self._queue.put_nowait(None)

    async def get(self) -> Any:
        """The next response; None after the last."""
        response = await self._queue.get()
        self._is_taken.release()
        return response


def _method_of(handler: Any) -> Any:
    """The one method of a handler, which is named after its kind."""
    methods = (
        handler.unary_unary,
        handler.unary_stream,
        handler.stream_unary,
        handler.stream_stream,
    )
    (method,) = filter(None, methods)
    return method


class _Details(NamedTuple):
    method: str
    invocation_metadata: Metadata


def _around(interceptor: grpc.aio.ServerInterceptor, inner: Any) -> Any:
    async def intercepted(details: grpc.HandlerCallDetails) -> Any:
        return await interceptor.intercept_service(inner, details)

    return intercepted
