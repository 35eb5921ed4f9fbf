"""Turns our errors into gRPC statuses with machine-readable details."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from charlm_server.calls.call import Call
from charlm_server.errors.auth import NotAllowed, Unauthenticated
from charlm_server.errors.base import (
    AnswerTooLarge,
    CharlmError,
    EngineDied,
    EngineFailed,
    InvalidRequest,
    MessageDamaged,
    NotOffered,
    TooManyEntries,
)
from charlm_server.errors.codec import CodecDamaged, CodecMismatch
from charlm_server.errors.models import (
    CheckpointUnknown,
    CheckpointUnusable,
    ModelInUse,
    ModelNotFound,
    TooManyModels,
)
from charlm_server.errors.overload import DeadlineTooShort, Draining, QueueFull
from charlm_server.errors.resume import ResumeMismatch, ResumeTokenDamaged
from charlm_server.errors.states import (
    PositionNotKept,
    StateChanged,
    StateDamaged,
    StateMismatch,
    StateNotFound,
    StatesFull,
)
from charlm_server.rpc.call_context import AuthenticatedHandler, IncomingCall, TrackedContext
from charlm_server.rpc.call_tracking import Calls, trailing_of
from charlm_server.rpc.convert.fields import duration_from
from charlm_server.rpc.request_bounds import check_entries

logger = logging.getLogger(__name__)

DOMAIN = "charlm"
STATUS_DETAILS = "grpc-status-details-bin"  # where every gRPC library looks for them

STATUS_OF: dict[type[CharlmError], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    MessageDamaged: grpc.StatusCode.INVALID_ARGUMENT,
    TooManyEntries: grpc.StatusCode.INVALID_ARGUMENT,
    AnswerTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    CheckpointUnknown: grpc.StatusCode.NOT_FOUND,
    CheckpointUnusable: grpc.StatusCode.DATA_LOSS,
    ModelInUse: grpc.StatusCode.FAILED_PRECONDITION,
    TooManyModels: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    DeadlineTooShort: grpc.StatusCode.DEADLINE_EXCEEDED,
    Draining: grpc.StatusCode.UNAVAILABLE,
    CodecMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    CodecDamaged: grpc.StatusCode.DATA_LOSS,
    ResumeMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    ResumeTokenDamaged: grpc.StatusCode.DATA_LOSS,
    StateNotFound: grpc.StatusCode.NOT_FOUND,
    StateChanged: grpc.StatusCode.ABORTED,
    PositionNotKept: grpc.StatusCode.OUT_OF_RANGE,
    StatesFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StateMismatch: grpc.StatusCode.FAILED_PRECONDITION,
    StateDamaged: grpc.StatusCode.DATA_LOSS,
    NotOffered: grpc.StatusCode.UNIMPLEMENTED,
    EngineFailed: grpc.StatusCode.INTERNAL,
    EngineDied: grpc.StatusCode.UNAVAILABLE,
}

Method = Callable[[Any, Any], Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Sends our errors to callers in full, and of other exceptions only that one occurred.

    It is the outermost, so it also notifies the observers of every call.
    """

    def __init__(self, calls: Calls, max_numbers: int) -> None:
        """`max_numbers` bounds the packed numbers of a request, such as token ids."""
        self._calls, self._max_numbers = calls, max_numbers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler, caller = await continuation(handler_call_details), ""
        if isinstance(handler, AuthenticatedHandler):
            handler, caller = handler
        details = handler_call_details
        incoming = IncomingCall(details.method, details.invocation_metadata, caller)
        if handler is None:
            self._calls.refuse_unknown(incoming)
            return None  # gRPC itself answers UNIMPLEMENTED
        return _with_errors_reported(handler, incoming, self._calls, self._max_numbers)


def _with_errors_reported(
    handler: Any, incoming: IncomingCall, calls: Calls, max_numbers: int
) -> Any:
    """The same handler; errors of its method become statuses."""
    kinds: dict[tuple[bool, bool], tuple[Method, Callable[..., Any]]] = {
        (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
        (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
        (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
        (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
    }
    method, handler_of = kinds[handler.request_streaming, handler.response_streaming]
    wrapped = _report_stream if handler.response_streaming else _report_unary
    return handler_of(
        wrapped(method, incoming, calls, is_stream=handler.request_streaming),
        request_deserializer=tolerant(handler.request_deserializer, max_numbers),
        response_serializer=handler.response_serializer,
    )


def _report_unary(
    method: Method, incoming: IncomingCall, calls: Calls, *, is_stream: bool
) -> Method:
    async def reporting(request: Any, context: Any) -> Any:
        with calls.observed(incoming, request, context) as call:
            try:
                intact = checked(request, partial(calls.receive, call), is_stream=is_stream)
                response = await method(intact, TrackedContext(context, call))
                call.wrote(response)
                return response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await _abort(context, error, call)

    return reporting


def _report_stream(
    method: Method, incoming: IncomingCall, calls: Calls, *, is_stream: bool
) -> Method:
    async def reporting(request: Any, context: Any) -> AsyncIterator[Any]:
        with calls.observed(incoming, request, context) as call:
            try:
                intact = checked(request, partial(calls.receive, call), is_stream=is_stream)
                async with aclosing(method(intact, TrackedContext(context, call))) as responses:
                    async for response in responses:
                        call.wrote(response)
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status
                await _abort(context, error, call)

    return reporting


async def _abort(context: Any, error: Exception, call: Call) -> NoReturn:
    status = status_from(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    call.code, call.reason = code.name, error.reason if isinstance(error, CharlmError) else ""
    if code is grpc.StatusCode.INTERNAL:
        logger.error("call %r failed with an internal error", call.request_id, exc_info=error)
    details = (STATUS_DETAILS, status.SerializeToString())
    await context.abort(code, status.message, (details, *trailing_of(call)))
    raise AssertionError("abort always raises")


def status_from(error: Exception) -> status_pb2.Status:
    """The status for a caller. The text of an exception that is not ours stays in the log."""
    if not isinstance(error, CharlmError):
        code = grpc.StatusCode.INTERNAL
        return status_pb2.Status(
            code=code.value[0], message="Internal error; the server's log has the details."
        )
    code = next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)
    details = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata),
        *_further_details(error),
    ]
    return status_pb2.Status(
        code=code.value[0], message=str(error), details=[_packed(detail) for detail in details]
    )


def _further_details(error: CharlmError) -> list[Message]:
    if isinstance(error, InvalidRequest):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=str(error)
        )
        return [error_details_pb2.BadRequest(field_violations=[violation])]
    if isinstance(error, ModelNotFound):
        return [error_details_pb2.ResourceInfo(resource_type="model", resource_name=error.name)]
    if isinstance(error, QueueFull | Draining | StatesFull):
        delay = duration_from(error.retry_after_s)
        return [error_details_pb2.RetryInfo(retry_delay=delay)]
    return []


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def tolerant(
    deserialize: Callable[[bytes], Any] | None, max_numbers: int
) -> Callable[[bytes], Any] | None:
    """gRPC reports an exception raised here as INTERNAL; so `checked` raises it later."""
    if deserialize is None:
        return None
    message = getattr(deserialize, "__self__", None)  # of FromString: the message's class

    def deserialized(data: bytes) -> Any:
        try:
            if message is not None:
                check_entries(data, message, max_numbers)
            return deserialize(data)
        except DecodeError:
            return MessageDamaged()
        except TooManyEntries as error:
            return error

    return deserialized


def checked(request: Any, on_request: Callable[[Any], None], *, is_stream: bool) -> Any:
    """The request, or each of a stream, passed to `on_request` first. Raises if it was refused."""
    return (_checked_stream if is_stream else _checked)(request, on_request)


def _checked(request: Any, on_request: Callable[[Any], None]) -> Any:
    if isinstance(request, CharlmError):
        raise request
    on_request(request)
    return request


async def _checked_stream(requests: Any, on_request: Callable[[Any], None]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request, on_request)
