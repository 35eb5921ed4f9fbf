"""Counts the fields and numbers in a request's bytes before it is parsed.

Two bytes can become a message of a hundred: 16 MiB of empty items would take gigabytes and keep the
event loop for half a minute. So fields and numbers are counted in the raw bytes, and a request with
too many is refused unparsed. Counting ends at the limit, after a few hundredths of a second.

Source: Protocol Buffers, Encoding (wire types and packed fields).
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from charlm_server.errors.base import TooManyEntries

MAX_FIELDS = 65_536
"""Most fields of one request, nested ones included; 4,096 full items have half as many."""
_VARINT, _BYTES = 0, 2
_MAX_VARINT = 10  # bytes; every parser refuses longer ones
_SIZES = {1: 8, 3: 0, 4: 0, 5: 4}  # of the other wire types: numbers of fixed size, ends of groups
_CONTINUED = bytes(range(128, 256))  # the bytes of a varint before its last
_WIDTHS = {
    FieldDescriptor.TYPE_DOUBLE: 8, FieldDescriptor.TYPE_FIXED64: 8,
    FieldDescriptor.TYPE_SFIXED64: 8, FieldDescriptor.TYPE_FLOAT: 4,
    FieldDescriptor.TYPE_FIXED32: 4, FieldDescriptor.TYPE_SFIXED32: 4,
}  # fmt: skip
_OF_BYTES = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}


def check_entries(data: bytes, message: type[Any], max_numbers: int) -> None:
    """Raises TooManyEntries for more than MAX_FIELDS fields or `max_numbers` packed numbers.

    Raises DecodeError for bytes that no parser reads: it would make all that is before them first.
    """
    if len(data) <= MAX_FIELDS:  # a field takes two bytes, a number one
        return
    num_numbers = 0
    found = _fields_in(data, message.DESCRIPTOR)
    for num_fields, (field, start, end) in enumerate(found, start=1):
        if num_fields > MAX_FIELDS:
            raise TooManyEntries("fields", MAX_FIELDS)
        if isinstance(field, int):
            num_numbers += _num_packed(data[start:end], field)
            if num_numbers > max_numbers:
                raise TooManyEntries("numbers", max_numbers)


def _fields_in(
    data: bytes, descriptor: Descriptor
) -> Iterator[tuple[Descriptor | int | None, int, int]]:
    """Every field of a message and of nested messages: its type, and where its bytes are."""
    waiting = [(descriptor, 0, len(data))]
    while waiting:
        of, at, end = waiting.pop()
        fields = _fields_of(of)
        while at < end:
            tag, start = _varint(data, at, end)
            wire_type, field = tag & 7, None
            if wire_type == _BYTES:
                size, start = _varint(data, start, end)
                field, at = fields.get(tag >> 3), min(start + size, end)
                if size and isinstance(field, Descriptor):
                    waiting.append((field, start, at))
            elif wire_type == _VARINT:
                _, at = _varint(data, start, end)
            elif wire_type in _SIZES:
                at = start + _SIZES[wire_type]
            else:
                raise DecodeError(f"wire type {wire_type}")
            yield field, start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = data[at] if at < end else 0
    if value < 0x80:  # nearly always
        return value, at + 1
    value = 0
    for shift, byte in enumerate(data[at : min(at + _MAX_VARINT, end)]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, at + shift + 1
    raise DecodeError("a varint without an end")


def _num_packed(data: bytes, width: int) -> int:
    return len(data) // width if width else len(data.translate(None, _CONTINUED))


_FIELDS: dict[str, dict[int, Descriptor | int]] = {}


def _fields_of(descriptor: Descriptor) -> dict[int, Descriptor | int]:
    """By field number: a message's type, or the width of packed numbers, 0 for varints."""
    found = _FIELDS.get(descriptor.full_name)
    if found is None:
        found = _FIELDS[descriptor.full_name] = {
            field.number: field.message_type or _WIDTHS.get(field.type, 0)
            for field in descriptor.fields
            if field.type not in _OF_BYTES
        }
    return found
