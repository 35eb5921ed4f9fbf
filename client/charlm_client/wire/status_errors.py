"""gRPC errors to the client's errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from charlm_client.errors import (
    CharlmError,
    CodecMismatch,
    DataLoss,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    NotAllowed,
    NotOffered,
    QueueFull,
    ServerFault,
    StateMismatch,
    StateNotFound,
    TooLarge,
    Unavailable,
    UnknownCharacter,
)
from charlm_client.wire.first_status import FirstStatus

ERROR_OF_STATUS: dict[grpc.StatusCode, type[CharlmError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.UNAUTHENTICATED: NotAllowed,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.FAILED_PRECONDITION: StateMismatch,
    grpc.StatusCode.ABORTED: StateMismatch,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QueueFull,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by the server, which stops (grpc 41785)
    grpc.StatusCode.UNIMPLEMENTED: NotOffered,
    grpc.StatusCode.DATA_LOSS: DataLoss,
}
# Reasons that are more specific than the status.
ERROR_OF_REASON: dict[str, type[CharlmError]] = {
    "UNKNOWN_CHARACTER": UnknownCharacter,
    "DRAINING": Draining,
    "MODEL_HAS_ALIAS": InvalidRequest,
    "TOO_MANY_MODELS": InvalidRequest,
    "CODEC_MODEL_MISMATCH": CodecMismatch,
    "CODEC_NUMERICS_MISMATCH": CodecMismatch,
    "ANSWER_TOO_LARGE": TooLarge,
    "STATE_NOT_FOUND": StateNotFound,
}
# The words of gRPC, which gives no reason, about a message over its size limit.
_TOO_LARGE_WORDS = "larger than max"


# localhost is an IPv6 and an IPv4 address, and gRPC reports the error of the last one only.
_LOCALHOST = re.compile("localhost:")
_ADVICE_FOR_LOCALHOST = (
    "This is the error of one address of localhost; to see that of a server on the other, "
    "for instance of its certificate, use 127.0.0.1 or [::1] instead."
)
# The words of gRPC about a failed handshake; the first that is found counts.
_HANDSHAKES = {
    "certificate has expired": "its certificate has expired",
    "CERTIFICATE_VERIFY_FAILED": "its certificate was not signed by an authority trusted here; "
    "name the right one with --tls-ca",
    "Hostname Verification": "its certificate is for another host; use the name in it",
    "WRONG_VERSION_NUMBER": "it does not encrypt; leave out the --tls flags and the token",
    "Socket closed": "it closed the connection; perhaps it asks for encryption (--tls-ca) or "
    "for a certificate (--tls-cert, --tls-key)",
}


@contextmanager
def translated(address: str, status: FirstStatus | None = None) -> Iterator[None]:
    """Raise CharlmError in place of gRPC's errors; `status` restores overwritten ones."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        first = status.of(error) if status is not None else error
        raise error_from(first, address) from error


def error_from(error: grpc.aio.AioRpcError, address: str) -> CharlmError:
    """The client's error for a failed call."""
    details = _Details(error)
    message = error.details() or error.code().name
    kind = ERROR_OF_REASON.get(details.reason) or ERROR_OF_STATUS.get(error.code(), ServerFault)
    if kind is QueueFull and _TOO_LARGE_WORDS in message:
        kind = TooLarge
    if not details.reason:
        message = _explained(kind, message, address)
    if issubclass(kind, InvalidRequest):
        return kind(message, reason=details.reason, field=details.field)
    if issubclass(kind, QueueFull):
        return kind(message, reason=details.reason, retry_after_s=details.retry_after_s)
    return kind(message, reason=details.reason)


def _explained(kind: type[CharlmError], message: str, address: str) -> str:
    """The message for an error of gRPC itself, which the server did not write."""
    if kind is Unavailable:
        for words, why in _HANDSHAKES.items():
            if words in message:
                return f"No connection to the server at {address}: {why}. ({message})"
        advice = "Start one with `charlm serve DIR`, or name another address."
        if _LOCALHOST.match(address):
            advice += f" {_ADVICE_FOR_LOCALHOST}"
        return f"No charlm server answers at {address}. {advice} ({message})"
    if kind is DeadlineExceeded:
        advice = "Allow more time with --timeout or timeout_s."
        return f"The server at {address} did not answer in time. {advice} ({message})"
    if kind is TooLarge:
        return f"A message is too large; send or ask for less in one call. ({message})"
    return message


class _Details:
    """The google.rpc details of a failed call; empty where it has none."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.reason, self.field, self.retry_after_s = "", "", 1.0
        try:
            status = rpc_status.from_call(error)
        except ValueError:  # a proxy changed the status and left the details
            return
        for detail in status.details if status else ():
            self._read(detail)

    def _read(self, detail: any_pb2.Any) -> None:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            self.reason = info.reason
        elif detail.Unpack(bad):
            self.field = bad.field_violations[0].field if bad.field_violations else ""
        elif detail.Unpack(retry):
            self.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
