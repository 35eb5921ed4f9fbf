"""Exported states round-trip bit for bit; damaged and forged ones are refused."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm_model import snapshot as snapshots
from charlm_model.errors import SnapshotDamaged, SnapshotError, SnapshotMismatch, SnapshotTooNew
from charlm_model.families.registry import FAMILIES
from charlm_model.language_model import LanguageModel
from charlm_model.mixture import Mixing, MixtureKind, MixtureModel
from charlm_model.snapshot import Provenance, Snapshot
from charlm_model.state import State

MakeModel = Callable[..., LanguageModel]
PROVENANCE = Provenance("a" * 64, "torch-9/x/threads-1")
SHARED_MODELS = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25
)
texts = st.lists(st.integers(0, 10), max_size=150)


def read(model: LanguageModel, ids: list[int]) -> Snapshot:
    logits_1TV, state = model.advance(torch.tensor([[0, *ids]]), model.initial_state(1))
    return Snapshot(state, logits_1TV[:, -1], len(ids))


def resealed(header: dict[str, Any], payload: bytes, *, version: int = 1) -> bytes:
    """A forged snapshot with a right digest."""
    head = json.dumps(header).encode()
    start = struct.pack("<4sHI", b"CLMS", version, len(head))
    return start + hashlib.sha256(start + head + payload).digest() + head + payload


def with_tensor(snapshot: Snapshot, name: str, value: torch.Tensor) -> Snapshot:
    return replace(snapshot, state=State({**snapshot.state.tensors, name: value}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_bit_comes_back(family: str, make_model: MakeModel) -> None:
    model = make_model(family)

    @SHARED_MODELS
    @given(texts, texts)
    def check(before: list[int], after: list[int]) -> None:
        original = read(model, before)
        restored = snapshots.decode(snapshots.encode(original, PROVENANCE), PROVENANCE, model)
        assert restored.num_tokens == original.num_tokens == len(before)
        assert restored.num_bytes == original.num_bytes
        assert torch.equal(restored.pending_logits_1V, original.pending_logits_1V)
        ids_1T = torch.tensor([[*after, 1]])
        expected, _ = model.advance(ids_1T, original.state.clone())
        assert torch.equal(model.advance(ids_1T, restored.state)[0], expected)

    check()


@pytest.mark.parametrize("kind", MixtureKind)
def test_a_mixture_state_can_be_continued(kind: MixtureKind, make_model: MakeModel) -> None:
    members = [make_model(family) for family in ("ngram", "gru", "transformer")]
    model = MixtureModel(members, Mixing(kind, (0.5, 0.3, 0.2))).eval()
    original = read(model, [1, 2, 3])

    restored = snapshots.decode(snapshots.encode(original, PROVENANCE), PROVENANCE, model)

    ids_1T = torch.tensor([[4, 5, 6]])
    expected, _ = model.advance(ids_1T, original.state.clone())
    assert torch.equal(model.advance(ids_1T, restored.state)[0], expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_byte_or_a_cut_is_refused(family: str, make_model: MakeModel) -> None:
    model = make_model(family)
    data = snapshots.encode(read(model, [3, 1, 4]), PROVENANCE)

    @SHARED_MODELS
    @given(st.integers(0, len(data) - 1), st.integers(1, 255))
    def check(at: int, change: int) -> None:
        changed = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
        for wrong in (changed, data[:at], data + data[:at] + b"x"):
            with pytest.raises(SnapshotError):
                snapshots.decode(wrong, PROVENANCE, model)

    check()


def test_errors_are_complete_sentences(make_model: MakeModel) -> None:
    model = make_model("gru")

    @SHARED_MODELS
    @given(st.binary(max_size=200), st.booleans())
    def check(data: bytes, begins_well: bool) -> None:
        with pytest.raises(SnapshotError, match=r"^[A-Z].*\.$"):
            snapshots.decode(b"CLMS\x01\x00" * begins_well + data, PROVENANCE, model)

    check()


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(PROVENANCE, model_digest="b" * 64), "checkpoint"),
        (replace(PROVENANCE, numerics="torch-10"), "arithmetic"),
    ],
)
def test_a_state_is_only_continued_with_its_provenance(
    other: Provenance, what: str, make_model: MakeModel
) -> None:
    model = make_model("lstm")
    data = snapshots.encode(read(model, [1]), other)

    with pytest.raises(SnapshotMismatch, match=f"another {what}") as caught:
        snapshots.decode(data, PROVENANCE, model)

    assert caught.value.what == what


@pytest.mark.parametrize("place", [4, 5, 6, 7])
def test_a_changed_version_byte_is_damage(place: int, make_model: MakeModel) -> None:
    model = make_model("rnn")
    data = bytearray(snapshots.encode(read(model, [1]), PROVENANCE))
    data[place] ^= 1

    with pytest.raises(SnapshotDamaged):
        snapshots.decode(bytes(data), PROVENANCE, model)


def test_a_newer_format_is_named(make_model: MakeModel) -> None:
    data = resealed({}, b"", version=2)

    with pytest.raises(SnapshotTooNew, match="format version 2, but this charlm reads 1"):
        snapshots.decode(data, PROVENANCE, make_model("rnn"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 2e9, -3e38])
def test_nan_and_overflowing_values_are_refused(value: float, make_model: MakeModel) -> None:
    model = make_model("lstm")
    snapshot = read(model, [1, 2])
    cell = snapshot.state["cell"].clone()
    cell[0, 1, 2] = value
    snapshot = with_tensor(snapshot, "cell", cell)

    with pytest.raises(
        SnapshotDamaged, match=r"state\.cell holds a value outside \[-1e\+09, 1e\+09\]"
    ):
        snapshots.decode(snapshots.encode(snapshot, PROVENANCE), PROVENANCE, model)


@pytest.mark.parametrize(
    ("family", "name", "value", "why"),
    [
        ("gru", "recent", torch.tensor([[1, 11]]), r"a token that is not in \[0, 11\)"),
        ("ngram", "recent", torch.full((1, 5), -2), "a token that is not in"),
        ("transformer", "position", torch.tensor([7]), "not the end of the text, 3"),
        ("transformer", "keys", torch.zeros(1), "shape"),
        ("rnn", "hidden", torch.zeros(1, 2, 8, dtype=torch.float64), "float64"),
        ("rnn", "another", torch.zeros(1), "missing or unknown"),
    ],
)
def test_impossible_state_values_are_refused(
    family: str, name: str, value: torch.Tensor, why: str, make_model: MakeModel
) -> None:
    model = make_model(family)
    snapshot = with_tensor(read(model, [1, 2]), name, value)

    with pytest.raises(SnapshotDamaged, match=why):
        snapshots.decode(snapshots.encode(snapshot, PROVENANCE), PROVENANCE, model)


@pytest.mark.parametrize("changes", [{"num_tokens": -1}, {"num_tokens": True}, {"numerics": 3}])
def test_a_header_with_invalid_values_is_refused(
    changes: dict[str, Any], make_model: MakeModel
) -> None:
    header = {
        "model_digest": PROVENANCE.model_digest,
        "numerics": PROVENANCE.numerics,
        "num_tokens": 2,
    }

    with pytest.raises(SnapshotDamaged, match="invalid value"):
        snapshots.decode(resealed({**header, **changes}, b""), PROVENANCE, make_model("rnn"))


def test_unreadable_tensors_are_refused(make_model: MakeModel) -> None:
    header = {
        "model_digest": PROVENANCE.model_digest,
        "numerics": PROVENANCE.numerics,
        "num_tokens": 2,
    }

    with pytest.raises(SnapshotDamaged, match="tensors cannot be read"):
        snapshots.decode(resealed(header, b"\x08" * 40), PROVENANCE, make_model("rnn"))


def test_a_state_of_another_size_is_refused(make_model: MakeModel) -> None:
    data = snapshots.encode(read(make_model("gru", hidden_size=16), [1]), PROVENANCE)

    with pytest.raises(SnapshotDamaged, match="shape"):
        snapshots.decode(data, PROVENANCE, make_model("gru"))
