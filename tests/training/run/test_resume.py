"""A run that was killed and resumed ends in the same bytes as one that was not."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_run import SIZES, TEXT, Killed, options, train, weights

from charlm_training.errors import InvalidOption
from charlm_training.monitoring.events import Event, Noticed, Resumed
from charlm_training.planning.options import TrainOptions
from charlm_training.run.run import Run
from charlm_training.run.session import train_in_terminal
from charlm_training.run.workspace import Workspace
from charlm_training.step.learner import Learner, StepResult

KILLED_RUNS = Path(__file__).parents[1] / "killed_runs.py"
# CHARLM_KILLS=25 pytest tests/training/run/test_resume.py is the full trial.
KILLS = int(os.environ.get("CHARLM_KILLS", "3"))


def ignore(event: Event) -> None:
    del event


def killed_at(step: int, given: TrainOptions, clock: Any, patch: pytest.MonkeyPatch) -> None:
    original = Learner.step

    def deadly(learner: Learner, rate: float) -> Any:
        if learner.spent.steps == step:
            raise Killed
        return original(learner, rate)

    patch.setattr(Learner, "step", deadly)
    with pytest.raises(Killed):
        train(given, clock, ignore)
    patch.setattr(Learner, "step", original)


@pytest.fixture
def uninterrupted(tmp_path: Path) -> Path:
    folder = tmp_path / "uninterrupted"
    folder.mkdir()
    return folder


# Kernels of our own take an LSTM of 384 and a Transformer of 64.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "width"),
    [
        ("rnn", 16),
        ("gru", 16),
        ("lstm", 16),
        ("lstm", 384),
        ("transformer", 16),
        ("transformer", 64),
    ],
)
def test_a_resumed_run_ends_in_the_same_bytes(
    tmp_path: Path,
    uninterrupted: Path,
    family: str,
    width: int,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = {"dropout": 0.2, "num_layers": 2, "hidden_size": width}
    changes: dict[str, Any] = {"family": family, "size": size}
    train(options(uninterrupted, **changes), clock, ignore)
    killed_at(13, options(tmp_path, **changes), clock, monkeypatch)

    events: list[Event] = []
    again = options(tmp_path, **changes, resume=True)
    report = train(again, clock, events.append).report

    assert [event.step for event in events if isinstance(event, Resumed)] == [13]
    assert weights(tmp_path / "out") == weights(uninterrupted / "out")
    assert report["training"]["steps"] == 24
    assert not Workspace(again.out).state.exists()


@pytest.mark.slow
def test_a_divergence_after_resuming_goes_back_to_where_it_would_have_gone(
    tmp_path: Path, uninterrupted: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save was made at step 13, and what was safe is of step 12, in the earlier process."""
    with diverging_at(13, monkeypatch):
        train(options(uninterrupted), clock, ignore)
    killed_at(13, options(tmp_path), clock, monkeypatch)

    events: list[Event] = []
    with diverging_at(13, monkeypatch):
        train(options(tmp_path, resume=True), clock, events.append)

    assert any("went back to step 12" in each.text for each in events if isinstance(each, Noticed))
    assert weights(tmp_path / "out") == weights(uninterrupted / "out")


@contextmanager
def diverging_at(step: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loss of that step is infinite, the first time that it is made."""
    original, left = Learner.step, [1]

    def step_once(learner: Learner, rate: float) -> StepResult:
        is_bad = learner.spent.steps == step and bool(left)
        result = original(learner, rate)
        return replace(result, loss_nats=math.inf * left.pop()) if is_bad else result

    with patch.context() as patched:
        patched.setattr(Learner, "step", step_once)
        yield


@pytest.mark.slow
def test_killed_at_any_moment_of_a_save_it_ends_in_the_same_bytes(
    tmp_path: Path, uninterrupted: Path
) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text(TEXT)
    of_lstm = {name: size for name, size in SIZES.items() if name != "num_heads"}
    sizes = [part for k, v in of_lstm.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    steps = str(10 * KILLS)
    command = [str(corpus), "--steps", steps, "--save-interval", "0", "--dropout", "0.1", *sizes]

    killed = run_killed(KILLS, [*command, "--out", str(tmp_path / "out")])
    run_killed(0, [*command, "--out", str(uninterrupted / "out")])

    assert 0 < killed <= KILLS  # on a fast machine it finishes before the last of them
    assert weights(tmp_path / "out") == weights(uninterrupted / "out")
    logs = [Workspace(folder / "out").log for folder in (tmp_path, uninterrupted)]
    assert evaluations(logs[0]) == evaluations(logs[1])
    assert {path.name for path in logs[0].parent.iterdir()} == {"log.jsonl", "report.html"}


def run_killed(kills: int, arguments: list[str]) -> int:
    """How often the run was killed before it finished."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(KILLED_RUNS), str(kills), "7", "0.6", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def evaluations(log: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [(r["step"], r["nats_per_token"]) for r in records if r["event"] == "evaluated"]


@pytest.mark.slow
def test_a_resumed_wall_clock_remembers_what_was_spent(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.tick_s = 0.05
    given = options(tmp_path, steps=None, budget="40s")
    began = clock.now
    killed_at(20, given, clock, monkeypatch)
    before_s, clock.now = clock.now - began, clock.now + 1e6
    began = clock.now

    again = options(tmp_path, steps=None, budget="40s", resume=True)
    report = train(again, clock, ignore).report

    assert before_s > 5
    assert clock.now - began < 40 - before_s + 10
    assert 35 < report["training"]["elapsed_s"] < 45


@pytest.mark.slow
def test_an_interrupted_run_is_finished_by_resuming(
    tmp_path: Path, uninterrupted: Path, clock: Any
) -> None:
    train(options(uninterrupted), clock, ignore)
    questions = iter(range(1000))
    given = options(tmp_path, save_interval_s=1000.0)
    Workspace(given.out).prepare(force=False)
    first = Run(given, ignore, lambda: next(questions) >= 9, clock).train()

    second = train(options(tmp_path, resume=True), clock, ignore)

    assert (first.stopped_by, second.stopped_by) == ("interrupted", "budget")
    assert weights(tmp_path / "out") == weights(uninterrupted / "out")


@pytest.mark.slow
def test_a_finished_run_is_not_made_again(tmp_path: Path, clock: Any) -> None:
    report = train(options(tmp_path), clock, ignore).report

    again = train_in_terminal(options(tmp_path, resume=True), tensorboard=False)

    assert again.report["training"] == report["training"]


def test_nothing_to_resume_from_means_starting_at_the_beginning(tmp_path: Path, clock: Any) -> None:
    events: list[Event] = []

    report = train(options(tmp_path, resume=True), clock, events.append).report

    assert report["training"]["steps"] == 24
    notices = [each.text for each in events if isinstance(each, Noticed)]
    assert any("no saved state to resume" in text for text in notices)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [({"seed": 9}, "same seed"), ({"steps": 50}, "same steps"), ({"family": "gru"}, "same family")],
)
def test_another_run_cannot_be_resumed(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    killed_at(3, options(tmp_path), clock, monkeypatch)

    with pytest.raises(InvalidOption, match=said):
        train(options(tmp_path, resume=True, **changes), clock, ignore)


def test_another_text_cannot_be_resumed_on(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(3, options(tmp_path), clock, monkeypatch)
    given = options(tmp_path, resume=True)
    Path(given.corpus).write_text(TEXT + "!")

    with pytest.raises(InvalidOption, match="same text"):
        train(given, clock, ignore)
