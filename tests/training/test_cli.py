"""The commands as a person calls them: real processes, exit codes, one sentence for an error."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import typer
from charlm_training.cli import evaluate, train

app = typer.Typer()
app.command()(train)
app.command()(evaluate)
app()
"""
COMMAND = [sys.executable, "-c", PROGRAM]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
TINY = ["--hidden-size", "16", "--batch-size", "4", "--window-length", "16"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "a text.txt"
    path.write_text("the cat sat on the mat.\n" * 50)
    return path


def charlm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def test_train_and_evaluate_print_the_same_number(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    trained = charlm("train", corpus, "--out", out, "--steps", "20", "--json", *TINY)
    evaluated = charlm("evaluate", out, corpus, "--json")

    assert (trained.returncode, evaluated.returncode) == (0, 0)
    report = json.loads(trained.stdout)
    assert json.loads(evaluated.stdout)["validation"] == report["validation"]
    assert report["training"]["steps"] == 20
    assert "--hidden-size 16" in report["training"]["command"]
    log = (tmp_path / "out.run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line)["event"] for line in log]
    assert (events[0], events[-1]) == ("planned", "finished")


def test_the_printed_report_has_every_figure(corpus: Path, tmp_path: Path) -> None:
    result = charlm("train", corpus, "--out", tmp_path / "out", "--steps", "5", *TINY)

    for said in (
        "Trained lstm", "cold blocks of 256", "streamed", "nats/token", "bits/character",
        "bits/byte", "Baseline, an n-gram of order 6", "Saved in",
    ):  # fmt: skip
        assert said in result.stdout
    assert "validation slice" in result.stderr


def test_interrupting_a_real_process_leaves_a_clean_checkpoint(
    corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["train", str(corpus), "--out", str(out), "--steps", "1000000", *TINY]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        # The plan is printed once the signal handler is in place and training is about to begin.
        assert "lstm with" in process.stderr.readline()

        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "Trained lstm" in stdout
    evaluated = json.loads(charlm("evaluate", out, corpus, "--json").stdout)
    report = json.loads((out / "report.json").read_text())
    assert report["training"]["stopped_by"] == "interrupted"
    assert evaluated["validation"] == report["validation"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "has 0 character(s)"),
        (b"a", "has 1 character(s)"),
        (b"caf\xe9 and more text", "is not UTF-8: invalid continuation byte at byte offset 3"),
        (b"PK\x03\x04\0\0", "is a binary file"),
    ],
)
def test_a_bad_corpus_is_one_sentence_and_no_traceback(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)

    result = charlm("train", path, "--out", tmp_path / "out", "--steps", "5")

    assert result.returncode == 1
    assert result.stderr.startswith("charlm: ")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_flag_that_would_be_dropped_is_refused(corpus: Path, tmp_path: Path) -> None:
    result = charlm("train", corpus, "--out", tmp_path / "out", "--steps", "5", "--num-heads", "4")

    assert result.returncode == 2
    assert result.stderr.startswith("charlm: --num-heads is 4, but --family lstm has no use for it")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--steps", "0"),
        ("--family", "foo"),
        ("--budget", "soon"),
        ("--vocab-size", "400"),
        ("--dropout", "1.5"),
        ("--hidden-size", "0"),
        ("--learning-rate", "-1.0"),
    ],
)
def test_a_value_that_a_flag_cannot_have_is_wrong_usage(
    corpus: Path, tmp_path: Path, flag: str, value: str
) -> None:
    result = charlm("train", corpus, "--out", tmp_path / "out", flag, value)

    assert result.returncode == 2
    assert result.stderr.startswith(f"charlm: {flag} is ")
    assert result.stderr.count("\n") == 1


def test_a_missing_checkpoint_is_one_sentence(corpus: Path, tmp_path: Path) -> None:
    result = charlm("evaluate", tmp_path / "nothing", corpus)

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "nothing" in result.stderr


def test_help_says_which_command_trains_and_which_evaluates() -> None:
    learned, measured = (charlm(name, "--help").stdout for name in ("train", "evaluate"))

    assert "Text to train on" in learned
    assert "Text to train on" not in measured
    assert "Text to evaluate on" in measured


def test_evaluate_says_of_which_text_the_server_gives_the_same_figures() -> None:
    helped = " ".join(charlm("evaluate", "--help").stdout.split())

    assert "charlm evaluate book other.txt --exact" in helped
    assert "charlm score --file other.txt --total" in helped


def test_help_needs_no_torch() -> None:
    program = "import sys, charlm_training.cli; print('torch' in sys.modules)"

    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert loaded.stdout.strip() == "False"
