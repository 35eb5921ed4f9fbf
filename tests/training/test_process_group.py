"""Several processes that share a batch learn what one process learns that has it alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from charlm_training.budget import Spent, StepBudget, TimeBudget
from charlm_training.corpus.windows import BatchShape
from charlm_training.errors import InvalidOption
from charlm_training.planning.shared_budget import shared
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup, process_group_from

PROGRAM = Path(__file__).parent / "torchrun_program.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
# Two orders of adding differ by 2e-7 here; a share that counts for too much or too little, by 1e-2.
RELATIVE = 1e-5
TEXT = "the cat sat on the mat.\nthe dog sat on the cat.\nWho is it that can tell me?\n" * 40


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made, in `alone`, and two in `together`."""
    folder = tmp_path_factory.mktemp("group")
    corpus = folder / "text.txt"
    corpus.write_text(TEXT)
    for out, launcher in (("alone", [sys.executable]), ("together", TORCHRUN)):
        (folder / out).mkdir()
        done = run(*launcher, PROGRAM, corpus, folder / out)
        assert done.returncode == 0, done.stderr[-3000:]
        (folder / out / "ends.txt").write_text(done.stdout)
    return folder


def logged(out: Path, event: str, name: str) -> list[float]:
    log = out.with_name(out.name + ".run") / "log.jsonl"
    events = map(json.loads, log.read_text().splitlines())
    return [each[name] for each in events if each["event"] == event]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_two_processes_have_the_loss_curve_of_one(folder: Path, family: str) -> None:
    """With dropout, carried state, clipping, Muon and shares of two and three rows."""
    alone, together = folder / "alone" / family, folder / "together" / family

    losses = logged(alone, "progressed", "loss_nats")
    assert len(losses) == 20
    assert logged(together, "progressed", "loss_nats") == pytest.approx(losses, rel=RELATIVE)
    nats = logged(alone, "evaluated", "nats_per_token")
    assert logged(together, "evaluated", "nats_per_token") == pytest.approx(nats, rel=RELATIVE)
    ours, theirs = (load_file(out / "model.safetensors") for out in (alone, together))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0.02, atol=0.002)
    ours, theirs = (training_of(out) for out in (alone, together))
    assert (ours["tokens"], ours["processes"]) == (theirs["tokens"], 1)
    assert theirs["processes"] == 2


def training_of(out: Path) -> Any:
    return json.loads((out / "report.json").read_text())["training"]


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_and_what_is_resumed_ends_in_the_same_bytes(
    folder: Path,
) -> None:
    ends = (folder / "together" / "ends.txt").read_text().splitlines()

    assert sorted(ends) == [f"{rank} budget budget interrupted budget" for rank in range(2)]
    whole, resumed = (
        folder / "together" / out / "model.safetensors" for out in ("lstm", "resumed")
    )
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.slow
def test_the_command_line_says_in_a_sentence_what_cannot_be_shared(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    script = Path(sys.executable).with_name("charlm")
    arguments = [tmp_path / "text.txt", "--out", tmp_path / "out", "--steps", 2]

    done = run(*TORCHRUN, "--no-python", script, "train", *arguments, "--batch-size", 1)

    assert done.returncode == 1
    assert "charlm: 2 processes cannot share a batch of 1 rows" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_process_that_torchrun_did_not_start_is_alone() -> None:
    with process_group_from({"RANK": "0", "WORLD_SIZE": "2"}) as group:
        assert group is SINGLE_PROCESS
    with process_group_from(
        dict.fromkeys(("RANK", "MASTER_ADDR", "MASTER_PORT"), "0") | {"WORLD_SIZE": "1"}
    ):
        assert group.is_first
        assert group.command == []


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_every_row_has_one_process_and_shares_differ_by_one_at_most(size: int) -> None:
    shape = BatchShape(batch_size=7, length=3)

    shares = [shape.share_of(rank, size).own_rows() for rank in range(size)]

    rows = [list(range(7))[share] for share in shares]
    assert [row for share in rows for row in share] == list(range(7))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_more_processes_than_rows_are_refused() -> None:
    with pytest.raises(InvalidOption, match="4 processes cannot share a batch of 3 rows"):
        BatchShape(batch_size=3, length=8).share_of(0, 4)


def test_what_is_counted_needs_no_telling(clock: Any) -> None:
    steps, seconds = StepBudget(4), TimeBudget(8.0, clock)

    assert shared(steps, ProcessGroup(1, 2)) is steps
    assert shared(seconds, SINGLE_PROCESS) is seconds
    assert shared(seconds, ProcessGroup(1, 2)) is not seconds
    assert steps.progress(Spent(1, 0.1)) == 0.25
