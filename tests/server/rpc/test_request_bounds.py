"""Requests of many tiny entries are refused before anything is made of them."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from charlm.v1 import context_pb2, scoring_pb2
from charlm_server.app import ADMIN, SERVICES
from charlm_server.errors.base import TooManyEntries
from charlm_server.rpc.request_bounds import MAX_FIELDS, check_entries
from tests.server.wire import details_of, serving

NUM_BYTES = 16 << 20
MAX_NUMBERS = 8_000_000
Path = tuple[FieldDescriptor, ...]


def repeated_in(of: Descriptor, path: Path = ()) -> Iterator[Path]:
    """Every repeated field of a message and of the messages in it, with the fields on the way."""
    for field in of.fields:
        if field.is_repeated:
            yield (*path, field)
        if field.message_type is not None and field not in path:
            yield from repeated_in(field.message_type, (*path, field))


def requests() -> Iterator[tuple[str, type[Any], Path]]:
    for service in (*SERVICES, ADMIN):
        for method in service.methods:
            message = message_factory.GetMessageClass(method.input_type)
            for path in repeated_in(method.input_type):
                names = ".".join(field.name for field in path)
                yield f"{method.full_name}:{names}", message, path


REQUESTS = {name: (message, path) for name, message, path in requests()}


def filled(path: Path) -> bytes:
    """The smallest entries of the last field of a path, as many as 16 MiB hold."""
    *outer, field = path
    tag = bytes([field.number << 3 | 2])
    is_packed = field.type not in (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE)
    width = 8 if field.type == field.TYPE_DOUBLE else 1
    data = delimited(tag, bytes(width) * (NUM_BYTES // width)) if is_packed else None
    data = (tag + b"\0") * (NUM_BYTES // 2) if data is None else data
    for above in reversed(outer):
        data = delimited(bytes([above.number << 3 | 2]), data)
    return data


def delimited(tag: bytes, data: bytes) -> bytes:
    length, size = b"", len(data)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return tag + length + bytes([size]) + data


@pytest.mark.parametrize("name", REQUESTS)
def test_the_smallest_entries_of_every_repeated_field_are_counted(name: str) -> None:
    message, path = REQUESTS[name]
    data = filled(path)

    if path[-1].type == FieldDescriptor.TYPE_DOUBLE:  # two million numbers: no more than allowed
        check_entries(data, message, MAX_NUMBERS)
        return
    with pytest.raises(TooManyEntries, match="more than"):
        check_entries(data, message, MAX_NUMBERS)


@given(data=st.binary(max_size=40))
def test_bytes_are_damaged_only_where_the_parser_says_so(data: bytes) -> None:
    padded = data + b"\xff" * (MAX_FIELDS + 1)

    try:
        check_entries(padded, scoring_pb2.ScoreRequest, MAX_NUMBERS)
    except DecodeError:
        with pytest.raises(DecodeError):
            scoring_pb2.ScoreRequest.FromString(padded)


def test_a_varint_without_an_end_is_read_no_further_than_ten_bytes() -> None:
    with pytest.raises(DecodeError):
        check_entries(b"\xff" * NUM_BYTES, scoring_pb2.ScoreRequest, MAX_NUMBERS)


@pytest.mark.parametrize("rest", [b"\x0f", b"\xff" * 11], ids=["wire type", "varint"])
def test_entries_before_damaged_bytes_are_never_made(rest: bytes) -> None:
    message, path = REQUESTS["charlm.v1.GenerationService.Generate:stopping.stop_sequences"]

    with pytest.raises((DecodeError, TooManyEntries)):
        check_entries(filled(path) + rest, message, MAX_NUMBERS)


def test_the_largest_score_that_the_limits_allow_passes() -> None:
    item = scoring_pb2.ScoreItem(context=context_pb2.Context(text="x" * 9), text="y" * 300)
    request = scoring_pb2.ScoreRequest(model="models/m", items=[item] * 4096)

    check_entries(request.SerializeToString(), scoring_pb2.ScoreRequest, MAX_NUMBERS)


async def test_the_error_says_that_the_request_was_not_parsed() -> None:
    data = filled(REQUESTS["charlm.v1.ScoringService.Score:items"][1])[: 15 << 20]

    async with serving(("lstm", "char")) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await wire.channel.unary_unary("/charlm.v1.ScoringService/Score")(data)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details_of(refused.value)["ErrorInfo"].reason == "TOO_MANY_ENTRIES"  # type: ignore[attr-defined]
