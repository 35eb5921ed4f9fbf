"""Bytes and JSON values with something wrong in them, drawn from a seed."""

import copy
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

DEEP = 100_000
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "\0", "../../x", "/dev/zero", "\ud800", "a" * 5_000, [], {}, [[]], [1, "a"],
    {"": 0}, "NaN", "gru", "ngram", "transformer", "char", "byte", "sentencepiece", 65_536, 8_192,
]  # fmt: skip
FOREIGN = [
    b"", b"\0", b"{}", b"[]", b"null", b"\xff\xfe", b"\x80\x04K\x01.", b"PK\x03\x04", b"\x89PNG",
    b"\x7fELF" + bytes(60), b"[" * DEEP, b'{"a":' * DEEP, b"9" * 5_000, b"[tokens]\nname=" * 3,
    b"a=" + b"[" * DEEP, bytes(1 << 16), struct.pack("<Q", 2**63) + bytes(64),
]  # fmt: skip


class Damage:
    """An endless supply; the same seed does the same damage."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)

    def bytes(self, data: bytes) -> bytes:
        """Changed, cut, doubled, or not its own at all."""
        if not data or self.random.random() < 0.1:
            return self.random.choice(FOREIGN)
        for _ in range(self.random.choice((1, 1, 1, 2, 5))):
            data = self.random.choice(
                (self._flipped, self._flipped, self._cut, self._spliced, self._overwritten)
            )(data)
        return data

    def json(self, data: bytes) -> bytes:
        """The same document with other values, or bytes that are none."""
        if self.random.random() < 0.2:
            return self.bytes(data)
        return json.dumps(self.value(json.loads(data))).encode()

    def value(self, value: Any) -> Any:
        """A few of its parts replaced, removed, doubled or nested."""
        value = copy.deepcopy(value)
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            value = self._elsewhere(value)
        return value

    def tensors(self, data: bytes) -> bytes:
        """Safetensors: the header as JSON, or the numbers, or both as bytes."""
        if self.random.random() < 0.4 or len(data) < 8:
            return self.bytes(data)
        (size,) = struct.unpack("<Q", data[:8])
        head, numbers = data[8 : 8 + size], data[8 + size :]
        if self.random.random() < 0.5:
            return data[: 8 + size] + self._numbers(numbers)
        changed = json.dumps(self.value(json.loads(head))).encode()
        return struct.pack("<Q", len(changed)) + changed + numbers

    def _elsewhere(self, value: Any) -> Any:
        places = list(_places(value))
        if not places:
            return self.random.choice(STRANGE)
        holder, key = self.random.choice(places)
        kind = self.random.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            other, place = self.random.choice(places)
            holder[key] = copy.deepcopy(other[place]) if place in _keys(other) else None
        elif kind == 2 and isinstance(holder, dict):
            holder[key + self.random.choice(("x", "\0", "_9"))] = holder.pop(key)
        elif isinstance(holder[key], int | float) and kind == 3:
            holder[key] = self._number(holder[key])
        else:
            holder[key] = self.random.choice(STRANGE)
        return value

    def _number(self, number: float) -> float:
        change: Callable[[float], float] = self.random.choice(
            (lambda n: n + 1, lambda n: n - 1, lambda n: -n, lambda n: n * 1000, lambda n: n + 0.5)
        )
        return change(number)

    def _numbers(self, data: bytes) -> bytes:
        """Overwrites eight bytes at a random place with an extreme number."""
        if len(data) < 8:
            return data
        at = self.random.randrange(len(data) // 8) * 8
        whole = struct.pack("<q", self.random.choice((-1, 2**62, -(2**63), 10**6, 257)))
        single = struct.pack("<2f", *[self.random.choice((float("nan"), 1e38, -3e9))] * 2)
        return data[:at] + self.random.choice((whole, single)) + data[at + 8 :]

    def _flipped(self, data: bytes) -> bytes:
        if not data:
            return data
        at = self.random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.random.randrange(8)]) + data[at + 1 :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self.random.randrange(len(data) + 1)]

    def _spliced(self, data: bytes) -> bytes:
        first, second = (self.random.randrange(len(data) + 1) for _ in range(2))
        return data[:first] + data[second:]

    def _overwritten(self, data: bytes) -> bytes:
        at, num = self.random.randrange(len(data) + 1), self.random.choice((1, 4, 8, 100))
        filling = self.random.choice((bytes(num), b"\xff" * num, self.random.randbytes(num)))
        return data[:at] + filling + data[at + num :]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a nested value, as its holder and the key there."""
    found: list[tuple[Any, Any]] = []
    for key in _keys(value):
        found += [(value, key), *_places(value[key])]
    return found


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []
