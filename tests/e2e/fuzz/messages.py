"""Random messages from protobuf descriptors: near enough to valid ones to get past the first check.

The same seed gives the same messages, whatever is done with them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

STRANGE_TEXTS = [
    "",
    "\0",
    "é",
    "🎉" * 3,
    "\ud7ff",
    "../../etc/passwd",
    "a" * 300,
    "models/",
    "((((",
    "a{9}",
]
STRANGE_FLOATS = [0.0, -1.0, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")]
BITS = {
    FieldDescriptor.TYPE_INT32: (32, True),
    FieldDescriptor.TYPE_UINT32: (32, False),
    FieldDescriptor.TYPE_INT64: (64, True),
    FieldDescriptor.TYPE_UINT64: (64, False),
}
MAX_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Names:
    """Values that mean something to the server, for the string fields of these names."""

    by_field: dict[str, Sequence[str]]
    alphabet: str


class Messages:
    """An endless supply."""

    def __init__(self, seed: int, names: Names) -> None:
        self._random, self._names = Random(seed), names

    def of(self, descriptor: Descriptor) -> Message:
        """A random message of this kind; it is often a good one, and often nearly so."""
        message = message_factory.GetMessageClass(descriptor)()
        self._fill(message, descriptor, 0)
        return message

    def bytes_of(self, descriptor: Descriptor) -> bytes:
        """As on the wire; one in thirty is damaged there."""
        data = self.of(descriptor).SerializeToString()
        return self._damaged(data) if self._random.random() < 1 / 30 else data

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data or b"\x0a\xff")
        damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged[: self._random.randrange(1, len(damaged) + 1)])

    def _fill(self, message: Any, descriptor: Descriptor, depth: int) -> None:
        chosen = {
            oneof.name: self._random.choice(oneof.fields) for oneof in descriptor.oneofs
        }  # a lone optional field is a oneof too
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and chosen[oneof.name] is not field:
                continue
            if field.name in self._names.by_field or self._random.random() < 0.4:
                self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.is_repeated:
            target = getattr(message, field.name)
            for _ in range(self._random.choice((0, 1, 1, 2, 3, 20))):
                self._append(target, field, depth)
        elif field.message_type is not None:
            if depth < MAX_DEPTH:
                child = getattr(message, field.name)
                child.SetInParent()
                self._fill(child, field.message_type, depth + 1)
        else:
            setattr(message, field.name, self._scalar(field))

    def _append(self, target: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is None:
            target.append(self._scalar(field))
        elif field.message_type.GetOptions().map_entry:
            key_field, value_field = field.message_type.fields
            if value_field.message_type is None:
                target[self._scalar(key_field)] = self._scalar(value_field)
        elif depth < MAX_DEPTH:
            self._fill(target.add(), field.message_type, depth + 1)

    def _scalar(self, field: FieldDescriptor) -> Any:
        random = self._random
        if field.enum_type is not None:
            return random.choice([*(value.number for value in field.enum_type.values), 99])
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field.name)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return random.choice((b"", random.randbytes(random.randrange(40)), b"the fox"))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return random.random() < 0.3
        if field.type in BITS:
            return self._integer(*BITS[field.type])
        number = random.choice((random.random(), random.gauss(0, 3), *STRANGE_FLOATS))
        return _single(number) if field.type == FieldDescriptor.TYPE_FLOAT else number

    def _text(self, name: str) -> str:
        random = self._random
        if name in self._names.by_field and random.random() < 0.95:
            return random.choice(self._names.by_field[name])
        if random.random() < 0.2:
            return random.choice(STRANGE_TEXTS)
        return "".join(random.choices(self._names.alphabet, k=random.choice((1, 3, 12, 60))))

    def _integer(self, bits: int, is_signed: bool) -> int:
        least = -(2 ** (bits - 1)) if is_signed else 0
        most = 2 ** (bits - is_signed) - 1
        common = [self._random.randrange(1, 9)] * 6
        return self._random.choice([0, *common, 30, 1000, most, max(least, -1), least])


def _single(number: float) -> float:
    """The nearest number of 32 bits; infinite beyond."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", number))
    except OverflowError:
        return float("inf")
    return float(rounded)
