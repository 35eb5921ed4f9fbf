"""The command as a person uses it: train, evaluate, serve, ask, stop; and what goes wrong."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHARLM = [sys.executable, "-m", "charlm_client"]
FAMILIES = ("ngram", "rnn", "gru", "lstm", "transformer")


def charlm(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CHARLM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a corpus") / "text.txt"
    path.write_text("abcd efgh. " * 2000)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_evaluates_and_serves(
    family: str, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / family
    steps = [] if family == "ngram" else ["--steps", "20"]

    trained = charlm("train", corpus, "--family", family, "--out", out, *steps)
    evaluated = charlm("evaluate", out, corpus, "--json")

    assert trained.returncode == 0, trained.stderr
    assert "bits/byte" in trained.stdout + trained.stderr
    assert evaluated.returncode == 0, evaluated.stderr
    report = json.loads((out / "report.json").read_text())
    assert json.loads(evaluated.stdout)["validation"] == report["validation"]
    command = [*CHARLM, "serve", str(out), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip().rsplit(" ", 1)[-1]
        wish = ["--max-tokens", "50", "--seed", "1", "--ignore-end-of-text"]  # some text for sure
        generated = charlm("generate", "abcd ", *wish, "--server", address)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert generated.returncode == 0, generated.stderr
    assert generated.stdout.strip()


def test_the_command_asks_a_real_server(server_address: str) -> None:
    asking = ("--server", server_address, "--model", "fox")

    same = [charlm("generate", "The ", "--seed", "3", *asking).stdout for _ in range(2)]
    scored = charlm("score", "The fox", "--json", *asking)
    following = charlm("next", "The ", "--json", *asking)
    unknown = charlm("generate", "Ünknown", *asking)
    refused = charlm("generate", "The ", "--top-p", "2", *asking)

    assert same[0] == same[1]
    assert json.loads(scored.stdout)["num_characters"] == 7
    assert len(json.loads(following.stdout)["top"]) == 10
    assert unknown.returncode == 1
    assert "'Ü'" in unknown.stderr
    assert "offset 0" in unknown.stderr
    assert refused.returncode == 1
    assert "--top-p is 2.0" in refused.stderr
    assert "Traceback" not in unknown.stderr + refused.stderr


def test_lines_are_scored_each_by_itself(server_address: str, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("fox\n\nthe dog\nfox\n")
    asking = ("--lines", "--server", server_address, "--model", "fox")

    rows = charlm("score", "--file", file, *asking)
    objects = charlm("score", "--file", file, "--json", *asking)
    alone = json.loads(charlm("score", "fox", "--json", *asking[1:]).stdout)
    without = charlm("score", "fox", *asking)

    _, first, second, third = (line.split("\t") for line in rows.stdout.splitlines())
    assert first == third
    assert (first[0], second[0]) == ("fox", "the dog")
    assert float(first[1]) == pytest.approx(alone["total_logprob"], abs=1e-6)
    assert "3 lines of 13 characters" in rows.stderr
    assert [json.loads(line)["text"] for line in objects.stdout.splitlines()] == [
        "fox", "the dog", "fox",
    ]  # fmt: skip
    assert without.returncode == 2
    assert "--file" in without.stderr


def test_a_server_that_cannot_start_says_why(checkpoints: Path, tmp_path: Path) -> None:
    empty, damaged, newer = tmp_path / "empty", tmp_path / "damaged", tmp_path / "newer"
    empty.mkdir()
    for copy in (damaged, newer):
        copy.mkdir()
        for file in (checkpoints / "fox").iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    config = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        complaints = {
            "no directory|does not exist|no such": charlm("serve", tmp_path / "none"),
            "not a checkpoint": charlm("serve", empty),
            "model.safetensors": charlm("serve", damaged, "--port", "0"),
            "99": charlm("serve", newer, "--port", "0"),
            "in use": charlm("serve", checkpoints / "fox", "--port", port),
            "--allow-insecure": charlm("serve", checkpoints / "fox", "--host", "0.0.0.0"),
        }

    for expected, finished in complaints.items():
        assert finished.returncode == 1, expected
        assert any(part in finished.stderr for part in expected.split("|")), finished.stderr
        assert "Traceback" not in finished.stderr
        assert len(finished.stderr.strip().splitlines()) == 1
