"""Constraints, gaps, top continuations and mixtures from the command line, on real servers."""

import json
import os
import re
import subprocess
import sys
from math import exp
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHARLM = [sys.executable, "-m", "charlm_client"]


def charlm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CHARLM, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def objects(finished: "subprocess.CompletedProcess[str]") -> list[dict[str, object]]:
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_outputs_are_in_the_language_that_was_asked_for(server_address: str) -> None:
    asking = ("--server", server_address, "--model", "fox", "--max-tokens", "30")

    matched = charlm("generate", "The ", "--regex", "[a-f]{3} (dog|fox)", *asking)
    drawn = charlm(
        "generate", "The ", "--regex", "[a-f]{3} (dog|fox)", "--constraint-mode=smc", "--json",
        *asking,
    )  # fmt: skip
    refused = charlm("generate", "The ", "--regex", "(a|b)*a(a|b){20}", *asking)

    assert re.fullmatch("[a-f]{3} (dog|fox)", matched.stdout.rstrip("\n"))
    chunks = objects(drawn)
    assert re.fullmatch("[a-f]{3} (dog|fox)", "".join(str(chunk["text"]) for chunk in chunks))
    assert isinstance(chunks[-1]["log_evidence"], float)
    assert chunks[-1]["finish_reason"] == "constraint_complete"
    assert refused.returncode == 1
    assert "automaton of at most 10000 states" in refused.stderr


def test_a_gap_is_filled_and_the_best_continuations_are_listed(server_address: str) -> None:
    asking = ("--server", server_address, "--model", "fox", "--json")

    (filled,) = objects(charlm("fill", "The qu_ck", "-n", "100", *asking))
    (top,) = objects(charlm("top", "The qu", "--length", "1", "-n", "3", *asking))
    (following,) = objects(charlm("next", "The qu", "--top-k", "3", *asking))

    assert isinstance(filled["fillings"], list)
    assert sum(filling["posterior"] for filling in filled["fillings"]) == pytest.approx(1)
    assert top["is_complete"]
    assert isinstance(top["continuations"], list)
    assert isinstance(following["top"], list)
    assert [(each["text"], exp(each["total_logprob"])) for each in top["continuations"]] == [
        (each["text"], pytest.approx(exp(each["logprob"]))) for each in following["top"]
    ]


def test_models_of_one_vocabulary_are_served_as_one(checkpoints: Path) -> None:
    command = [
        *CHARLM, "serve", f"one={checkpoints / 'fox'}", f"two={checkpoints / 'fox'}",
        "--mixture", "both=log_linear:one@0.75,two@0.25", "--port", "0",
    ]  # fmt: skip
    environment = {**os.environ, "CHARLM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        asking = ("--server", server.stdout.readline().strip().rsplit(" ", 1)[-1])
        scores = [
            objects(charlm("score", "The fox", "--json", "--model", name, *asking))[0]
            for name in ("one", "both")
        ]
        listed = charlm("models", *asking)
        server.terminate()
        assert server.wait(30) == 0

    # A model mixed with itself, by weights that sum to 1, is itself.
    assert scores[1]["total_logprob"] == pytest.approx(scores[0]["total_logprob"])
    assert "models/both\tmixture" in listed.stdout


def test_models_of_different_vocabularies_are_not(checkpoints: Path) -> None:
    refused = charlm("serve", checkpoints, "--mixture", "both=linear:fox,bytes", "--port", "0")

    assert refused.returncode == 1
    assert "models/both cannot be served: The vocabularies of the models differ" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
