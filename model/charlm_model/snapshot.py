"""Serializes the state of a model, so that another server can continue the text later.

    "CLMS", version (2), size of the header (4), SHA-256 of all else (32); header; tensors

Numbers are little-endian, the header is JSON, the tensors are safetensors: nothing is unpickled.
The digest detects accidental damage; forged values are caught by checking each one.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from charlm_model.devices import CPU
from charlm_model.errors import SnapshotDamaged, SnapshotMismatch, SnapshotTooNew
from charlm_model.language_model import LanguageModel
from charlm_model.state import State

MAGIC = b"CLMS"
VERSION = 1
MAX_TOKENS = 2**48
MAX_VALUE = 1e9  # far above any real state, far below an overflow
_HEAD = struct.Struct("<4sHI")
_DIGEST_BYTES = hashlib.sha256().digest_size
_PENDING, _STATE = "pending_logits", "state."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state after `num_tokens` tokens of a text (one row), and the logits of the next token.

    `num_tokens` does not count the start of the text.
    """

    state: State
    pending_logits_1V: Tensor
    num_tokens: int

    @classmethod
    def of(cls, state: State, pending_logits_1V: Tensor, num_tokens: int) -> "Snapshot":
        """A copy in CPU memory of a state on any device."""
        return cls(state.to(CPU, copy=True), pending_logits_1V.clone(), num_tokens)

    @property
    def num_bytes(self) -> int:
        pending = self.pending_logits_1V
        return self.state.num_bytes_per_row + pending.numel() * pending.element_size()

    def digest(self) -> bytes:
        """SHA-256 of all values."""
        found = hashlib.sha256(struct.pack("<Q", self.num_tokens))
        for name, tensor in sorted(_named(self.state, self.pending_logits_1V)):
            found.update(
                name.encode() + b"\0" + tensor.contiguous().view(torch.uint8).numpy().tobytes()
            )
        return found.digest()


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model and arithmetic that made a state; only the same can continue it."""

    model_digest: str
    numerics: str

    def check_same(self, other: "Provenance") -> None:
        """Raises SnapshotMismatch if the other differs."""
        if other.model_digest != self.model_digest:
            raise SnapshotMismatch("checkpoint", other.model_digest, self.model_digest)
        if other.numerics != self.numerics:
            raise SnapshotMismatch("arithmetic", other.numerics, self.numerics)


@dataclass(frozen=True, slots=True)
class UncheckedSnapshot:
    """A snapshot whose digest is right, but whose values are not yet checked."""

    provenance: Provenance
    num_tokens: int
    payload: bytes

    def checked(self, provenance: Provenance, model: LanguageModel) -> Snapshot:
        """The snapshot, checked for the model. Raises SnapshotMismatch or SnapshotDamaged."""
        provenance.check_same(self.provenance)
        try:
            loaded = safetensors.torch.load(self.payload)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise SnapshotDamaged("its tensors cannot be read") from error
        tensors = {name: tensor.clone() for name, tensor in loaded.items()}
        _check_shapes(tensors, _layout_of(model))
        for name, tensor in tensors.items():
            _check_values(name, tensor, self.num_tokens, model.config.vocab_size)
        pending_1V = tensors.pop(_PENDING)
        state = State({name.removeprefix(_STATE): tensor for name, tensor in tensors.items()})
        return Snapshot(state, pending_1V, self.num_tokens)


def encode(snapshot: Snapshot, provenance: Provenance) -> bytes:
    """Serialize a snapshot with its provenance."""
    header = {
        "model_digest": provenance.model_digest,
        "numerics": provenance.numerics,
        "num_tokens": snapshot.num_tokens,
    }
    head = json.dumps(header, separators=(",", ":")).encode()
    tensors = _named(snapshot.state, snapshot.pending_logits_1V)
    payload = safetensors.torch.save(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors}
    )
    start = _HEAD.pack(MAGIC, VERSION, len(head))
    return start + _digest(start, head, payload) + head + payload


def parse(data: bytes) -> UncheckedSnapshot:
    """Check format and digest. Raises SnapshotDamaged or SnapshotTooNew."""
    if len(data) < _HEAD.size + _DIGEST_BYTES or not data.startswith(MAGIC):
        raise SnapshotDamaged("it is truncated, or does not start as one")
    _, version, size = _HEAD.unpack(data[: _HEAD.size])
    start, digest = data[: _HEAD.size], data[_HEAD.size : _HEAD.size + _DIGEST_BYTES]
    rest = data[_HEAD.size + _DIGEST_BYTES :]
    head, payload = rest[:size], rest[size:]
    if _digest(start, head, payload) != digest:
        raise SnapshotDamaged("it is truncated or changed: its digest is wrong")
    if version != VERSION:
        raise SnapshotTooNew(version, VERSION)
    return _parsed(head, payload)


def decode(data: bytes, provenance: Provenance, model: LanguageModel) -> Snapshot:
    """Parse and check a snapshot for a model. Raises SnapshotError."""
    return parse(data).checked(provenance, model)


def _parsed(head: bytes, payload: bytes) -> UncheckedSnapshot:
    try:
        header = json.loads(head)
        provenance = Provenance(header["model_digest"], header["numerics"])
        num_tokens = header["num_tokens"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotDamaged("its header cannot be read") from error
    texts = provenance.model_digest, provenance.numerics
    is_count = type(num_tokens) is int and 0 <= num_tokens <= MAX_TOKENS
    if not is_count or not all(isinstance(text, str) for text in texts):
        raise SnapshotDamaged("its header has an invalid value")
    return UncheckedSnapshot(provenance, num_tokens, payload)


def _digest(start: bytes, head: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(start)
    digest.update(head)
    digest.update(payload)
    return digest.digest()


def _named(state: State, pending_logits_1V: Tensor) -> list[tuple[str, Tensor]]:
    carried = [(_STATE + name, tensor) for name, tensor in state.tensors.items()]
    return [*carried, (_PENDING, pending_logits_1V)]


def _layout_of(model: LanguageModel) -> dict[str, Tensor]:
    """Example tensors with the names, shapes and types of this model's snapshots."""
    pending_1V = torch.empty(1, model.config.vocab_size)
    return dict(_named(model.initial_state(1), pending_1V))


def _check_shapes(tensors: Mapping[str, Tensor], layout: Mapping[str, Tensor]) -> None:
    if tensors.keys() != layout.keys():
        wrong = ", ".join(sorted(tensors.keys() ^ layout.keys()))
        raise SnapshotDamaged(f"tensors are missing or unknown: {wrong[:200]}")
    for name, tensor in tensors.items():
        expected = layout[name]
        if tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise SnapshotDamaged(
                f"{name} is {tensor.dtype} of shape {list(tensor.shape)}; it must be "
                f"{expected.dtype} of shape {list(expected.shape)}"
            )


def _check_values(name: str, tensor: Tensor, num_tokens: int, vocab_size: int) -> None:
    """Floats must be bounded, positions at the text's end, and other integers ids or -1."""
    if tensor.is_floating_point():
        if not bool((tensor.abs() <= MAX_VALUE).all()):  # nor is a NaN
            raise SnapshotDamaged(f"{name} holds a value outside [-{MAX_VALUE:g}, {MAX_VALUE:g}]")
    elif name.endswith("position"):
        if bool((tensor != num_tokens + 1).any()):
            raise SnapshotDamaged(f"{name} is not the end of the text, {num_tokens + 1}")
    elif bool(((tensor < -1) | (tensor >= vocab_size)).any()):
        raise SnapshotDamaged(f"{name} holds a token that is not in [0, {vocab_size})")
