"""Creates the record of every call, and notifies the observers when it begins and ends."""

import asyncio
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from charlm.v1 import (
    admin_pb2,
    codec_pb2,
    generation_pb2,
    inference_pb2,
    models_pb2,
    scoring_pb2,
    state_pb2,
    tokenizer_pb2,
)
from charlm_server.calls.call import CANCELLED, LATE, OK, Call, Observer
from charlm_server.rpc.call_context import IncomingCall
from charlm_server.rpc.reflection import PACKAGES
from charlm_server.rpc.text_counters import COUNTER_OF, num_characters

REQUEST_ID = "x-request-id"  # in the metadata of a call and of its answer
OTHER = "other"  # for unknown methods: callers could otherwise create any number of labels
STREAMED_TEXT = "charlm.v1.GenerationService/StreamGenerate"

MAX_ID = 128
_ids = random.Random()  # seeded from the system's entropy; an id is no secret
_SENDABLE = re.compile(r"[!-~]+")
_FILES = (
    admin_pb2, codec_pb2, generation_pb2, inference_pb2, models_pb2, scoring_pb2, state_pb2,
    tokenizer_pb2, health_pb2,
)  # fmt: skip


def _methods() -> frozenset[str]:
    services: list[ServiceDescriptor] = [
        service for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()
    ]
    names = [f"{each.full_name}/{method.name}" for each in services for method in each.methods]
    reflections = [f"{package}.ServerReflection/ServerReflectionInfo" for package in PACKAGES]
    return frozenset([*names, *reflections])


METHODS = _methods()


class Calls:
    """Tracks every call of one server. Without observers a call only gets its id."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = tuple(observers)

    @contextmanager
    def observed(self, incoming: IncomingCall, request: Any, context: Any) -> Iterator[Call]:
        """Wraps one call and records its end, however it ends."""
        call = self._begun(incoming, request, _address_of(context.peer()))
        context.set_trailing_metadata(trailing_of(call))
        try:
            yield call
        except grpc.aio.AbortError:
            if call.code == OK:  # the servicer called abort itself
                call.code = _name_of(context.code())
            raise
        except (asyncio.CancelledError, GeneratorExit):
            call.code = LATE if context.time_remaining() == 0 else CANCELLED
            raise
        finally:
            self._end(call)

    def refuse_unknown(self, incoming: IncomingCall) -> None:
        """Record a call of an unknown method; gRPC itself answers it with UNIMPLEMENTED."""
        call = self._begun(incoming, None)
        call.code = grpc.StatusCode.UNIMPLEMENTED.name
        self._end(call)

    def receive(self, call: Call, request: Any) -> None:
        """Count a request that was read: the call's only one, or one of its stream."""
        if self._observers:
            call.amounts.received_characters += num_characters(request)

    def _begun(self, incoming: IncomingCall, request: Any, address: str = "") -> Call:
        carried: dict[str, Any] = dict(incoming.metadata or ())
        method = incoming.method.removeprefix("/")
        call = Call(
            method=method if method in METHODS else OTHER,
            request_id=_id_of(request, carried),
            caller=incoming.caller,
            address=address,
            metadata=carried,
            count_response=COUNTER_OF.get(method) if self._observers else None,
            streams_text=method == STREAMED_TEXT,
        )
        for observer in self._observers:
            observer.began(call)
        return call

    def _end(self, call: Call) -> None:
        call.ended_at = time.monotonic()
        try:
            for observer in reversed(self._observers):
                observer.ended(call)
        finally:
            call.release_models()


def trailing_of(call: Call) -> tuple[tuple[str, str], ...]:
    """The trailing metadata; an id that metadata cannot hold is only in the log."""
    return ((REQUEST_ID, call.request_id),) if _SENDABLE.fullmatch(call.request_id) else ()


def _id_of(request: Any, metadata: Mapping[str, Any]) -> str:
    """The caller's request id, or a new one."""
    told = getattr(getattr(request, "generate", request), "request_id", "")
    return (metadata.get(REQUEST_ID) or told)[:MAX_ID] or f"{_ids.getrandbits(64):016x}"


def _address_of(peer: str) -> str:
    """The peer without its port: "ipv4:127.0.0.1" of "ipv4:127.0.0.1:54321"."""
    return peer.rpartition(":")[0]


def _name_of(code: Any) -> str:
    """The name of a status code; in some places gRPC has the bare number."""
    return next((each.name for each in grpc.StatusCode if code in (each, each.value[0])), "UNKNOWN")
