"""The state of a run on disk: whole or not there, whatever happens to the process or the disk."""

import errno
import hashlib
import json
import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charlm_training.budget import Clock
from charlm_training.errors import RunStateDamaged
from charlm_training.monitoring.events import Event, Noticed
from charlm_training.run.checkpointer import Checkpointer
from charlm_training.run.run_state_store import RunStateStore
from charlm_training.run.stopwatch import Stopwatch
from charlm_training.state_tree import flatten, unflatten


@dataclass
class FakeTrainer:
    """Remembers when its state was asked for."""

    clock: Any = lambda: 0.0
    saved_at: list[float] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        self.saved_at.append(getattr(self.clock, "now", 0.0))
        return {}


KEYS = st.text() | st.integers()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
)


@given(VALUES)
def test_any_nested_value_comes_back(value: Any) -> None:
    assert unflatten(flatten(value, {}), {}) == value


def test_tensors_come_back_bit_for_bit_even_when_they_share_memory(tmp_path: Path) -> None:
    tied = torch.randn(3, 4)
    store = RunStateStore(tmp_path / "state")

    store.save({"a": tied, "b": [tied.T, (torch.tensor(3), 1)], "c": torch.arange(5).byte()})

    loaded = store.load()
    assert loaded is not None
    value = loaded[0]
    assert torch.equal(value["a"], tied)
    assert torch.equal(value["b"][0], tied.T)
    assert value["b"][1][0].dtype == torch.int64
    assert value["c"].dtype == torch.uint8


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors", "manifest.json"])
def test_a_torn_last_generation_is_replaced_by_the_spare(tmp_path: Path, name: str) -> None:
    store = saved(tmp_path, 1, 2)
    path = tmp_path / "state" / "last" / name
    path.write_bytes(path.read_bytes()[:-7])

    loaded = store.load()

    assert loaded is not None
    assert loaded[0]["n"] == 1
    assert "the save before it" in loaded[1][0]


def test_two_damaged_generations_are_an_error(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    for generation in ("last", "spare"):
        (tmp_path / "state" / generation / "state.json").write_bytes(b"{}")

    with pytest.raises(RunStateDamaged, match="without --resume"):
        store.load()


@pytest.mark.parametrize("document", [b"[" * 100_000, b'{"format_version": 1, "state": [1]}'])
def test_a_state_with_a_good_digest_is_not_believed(tmp_path: Path, document: bytes) -> None:
    store = saved(tmp_path, 1, 2)
    last = tmp_path / "state" / "last"
    (last / "state.json").write_bytes(document)
    digests = {
        name: hashlib.sha256((last / name).read_bytes()).hexdigest()
        for name in ("state.json", "tensors.safetensors")
    }
    (last / "manifest.json").write_text(json.dumps({"sha256": digests}))

    loaded = store.load()

    assert loaded is not None
    assert loaded[0]["n"] == 1


def test_a_death_between_two_renames_leaves_the_spare(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    (tmp_path / "state" / "last").rename(tmp_path / "state" / "elsewhere")

    loaded = store.load()

    assert loaded is not None
    assert loaded[0]["n"] == 1


def test_what_a_killed_save_left_is_swept(tmp_path: Path) -> None:
    store = saved(tmp_path, 1)
    (tmp_path / "state" / ".new-left").mkdir()

    store.save({"n": 2})

    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["last", "spare"]


def test_a_full_disk_costs_a_notice_and_nothing_that_was_saved(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    events: list[Event] = []
    store = saved(tmp_path, 1)
    checkpointer = Checkpointer(store, {}, 0.0, Stopwatch(clock), events.append)
    monkeypatch.setattr(os, "fsync", full)

    checkpointer.save_if_due(FakeTrainer(), at_once=True)

    (notice,) = events
    assert isinstance(notice, Noticed)
    assert "No space left on device" in notice.text
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["last"]
    loaded = store.load()
    assert loaded is not None
    assert loaded[0]["n"] == 1


def test_saves_take_at_most_a_fiftieth_of_the_time(tmp_path: Path, clock: Any) -> None:
    clock.tick_s = 1.0
    trainer = FakeTrainer(clock)
    checkpointer = Checkpointer(
        RunStateStore(tmp_path / "state"), {}, 10.0, Stopwatch(clock), lambda event: None
    )

    for _ in range(300):
        checkpointer.save_if_due(trainer, at_once=False)

    gaps = [b - a for a, b in pairwise(trainer.saved_at)]
    assert min(gaps) >= 50


def saved(folder: Path, *numbers: int) -> RunStateStore:
    store = RunStateStore(folder / "state")
    for number in numbers:
        store.save({"n": number, "weights": torch.full((2,), float(number))})
    return store
