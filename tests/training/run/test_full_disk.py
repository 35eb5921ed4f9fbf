"""A full disk costs a notice, never the run, and never the promise of equal bytes."""

import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Killed, options, train, weights

from charlm_training.monitoring.events import Event, Noticed, Resumed
from charlm_training.monitoring.log import JsonLog
from charlm_training.run.run import Run
from charlm_training.run.run_state_store import RunStateStore
from charlm_training.run.session import Broadcast
from charlm_training.run.workspace import Workspace
from charlm_training.step.learner import Learner, StepResult

DISK_BYTES, PAGE_BYTES = 4 << 20, 4096
STEPS = range(3, 21)
KILLED_AT = 22
Narrow = Callable[[float], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    with suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)
            return
    pytest.skip("a disk can be mounted by root alone")


@contextmanager
def narrowed(narrow: Narrow, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Before every one of the steps there is room for another share of a save, from 0 to 1."""
    step = Learner.step

    def narrow_and_step(learner: Learner, rate: float) -> StepResult:
        at = learner.spent.steps
        if at in STEPS:
            narrow((at - STEPS.start) / (len(STEPS) - 1))
        if at == KILLED_AT:
            raise Killed
        return step(learner, rate)

    with patch.context() as patched:
        patched.setattr(Learner, "step", narrow_and_step)
        yield


def run_into_it(
    folder: Path, clock: Any, narrow: Narrow, patch: pytest.MonkeyPatch
) -> tuple[list[Event], int]:
    """What was said until the run was killed, and how many saves went wrong."""
    failed, save = 0, RunStateStore.save

    def count(store: RunStateStore, value: dict[str, Any]) -> None:
        nonlocal failed
        try:
            save(store, value)
        except OSError:
            failed += 1
            raise

    events: list[Event] = []
    given = options(folder)
    Workspace(given.out).prepare(force=False)
    log = JsonLog(Workspace(given.out).log)
    patch.setattr(RunStateStore, "save", count)
    with narrowed(narrow, patch), pytest.raises(Killed):
        Run(given, Broadcast([log, events.append]), lambda: False, clock).train()
    log.close()
    return events, failed


def resumed(folder: Path, clock: Any) -> int:
    """At which step a run went on, that is finished."""
    events: list[Event] = []
    given = options(folder, resume=True)
    train(given, clock, events.append)
    return next(event.step for event in events if isinstance(event, Resumed))


@pytest.fixture
def uninterrupted(tmp_path: Path, clock: Any) -> bytes:
    folder = tmp_path / "uninterrupted"
    folder.mkdir()
    train(options(folder), clock, lambda event: None)
    return weights(folder / "out")


@pytest.mark.slow
def test_a_disk_full_at_any_moment_of_a_save_costs_notices_alone(
    disk: Path, uninterrupted: bytes, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ballast = disk / "ballast"
    needed = 0

    def narrow(share: float) -> None:
        nonlocal needed
        state = Workspace(disk / "out").state
        needed = needed or sum(path.stat().st_size for path in (state / "last").iterdir())
        ballast.unlink(missing_ok=True)
        fill(ballast, int(share * 1.1 * needed))

    events, failed = run_into_it(disk, clock, narrow, monkeypatch)

    said = [event.text for event in events if isinstance(event, Noticed)]
    assert failed >= len(STEPS) // 2
    assert sum("could not be saved (No space left on device)" in each for each in said) == failed
    lines = Workspace(disk / "out").log.read_bytes().splitlines(keepends=True)
    assert all(json.loads(line) for line in lines)
    ballast.unlink()
    assert 3 <= resumed(disk, clock) <= KILLED_AT
    assert weights(disk / "out") == uninterrupted


def fill(path: Path, left_bytes: int) -> None:
    """Write until so much room is left on the disk."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * PAGE_BYTES)
    os.truncate(path, max(path.stat().st_size - left_bytes, 0))


@pytest.mark.slow
def test_a_limit_to_the_size_of_files_costs_notices_alone(
    tmp_path: Path, uninterrupted: bytes, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs no root: each file of the state in turn is too large for the process's limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "limited"
    folder.mkdir()

    def narrow(share: float) -> None:
        largest = Workspace(folder / "out").state / "last" / "tensors.safetensors"
        limit = int(share * 1.1 * largest.stat().st_size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))

    try:
        events, failed = run_into_it(folder, clock, narrow, monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    said = [event.text for event in events if isinstance(event, Noticed)]
    assert failed >= len(STEPS) // 2
    assert sum("could not be saved (File too large)" in each for each in said) == failed
    assert 3 <= resumed(folder, clock) <= KILLED_AT
    assert weights(folder / "out") == uninterrupted
