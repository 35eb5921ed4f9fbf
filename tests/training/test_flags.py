"""An error caused by a flag names the flag as typed, its value, and what it must be.

Every flag of every command of training is in the table or takes any text.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from charlm_model import checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.text.vocabulary import CharVocabulary
from charlm_training.cli import evaluate, train
from charlm_training.diagnose.cli import diagnose
from charlm_training.export.cli import export
from charlm_training.leaderboard.cli import leaderboard
from charlm_training.planning.options import SizeOptions

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "leaderboard": leaderboard,
    "diagnose": diagnose,
    "export": export,
}
# What a command needs beside the flag under test.
GIVEN = {
    "train": ["text.txt", "--out", "out"],
    "leaderboard": ["text.txt", "--out", "out"],
    "diagnose": ["order", "text.txt", "--out", "out"],
    "export": ["model", "--out", "out"],
}
TRANSFORMER = ["--family", "transformer", "--steps", "1"]
BAD: list[tuple[str, str, str, str, list[str]]] = [
    # command, flag, value, what it must be, other flags that it needs
    ("train", "--family", "mamba", "one of ngram, rnn, gru, lstm, transformer", []),
    ("train", "--budget", "soon", "a duration such as 90s, 3m or 1h30m", []),
    ("train", "--budget", "40d", "a duration such as 90s, 3m or 1h30m", []),
    ("train", "--budget", "0s", "from 1 second to 30 days", []),
    ("train", "--device", "tpu", "cpu, cuda, cuda:N or auto", []),
    ("train", "--steps", "0", "from 1 to 1000000000", []),
    ("train", "--epochs", "0.0", "above 0, up to 1000000", []),
    ("train", "--unit", "page", "one of stream, line", []),
    ("train", "--vocabulary", "words", "one of char, byte, sentencepiece", []),
    ("train", "--vocab-size", "500", "only --vocabulary sentencepiece", []),
    ("train", "--vocab-size", "5", "from 300 to 8192", ["--vocabulary", "sentencepiece"]),
    ("train", "--validation-fraction", "0.9", "above 0 and at most 0.5", []),
    ("train", "--seed", "-1", "from 0 to 2**63 - 1", []),
    ("train", "--hidden-size", "0", "must be", ["--steps", "1"]),
    ("train", "--num-layers", "0", "must be", ["--steps", "1"]),
    ("train", "--num-heads", "0", "must be", TRANSFORMER),
    ("train", "--num-heads", "4", "--family lstm has no use for it", []),
    ("train", "--embedding-size", "0", "must be", ["--steps", "1"]),
    ("train", "--context-length", "0", "must be", TRANSFORMER),
    ("train", "--context-length", "99", "from 1 to 32", ["--family", "ngram"]),
    ("train", "--dropout", "1.5", "must be", ["--steps", "1"]),
    ("train", "--learning-rate", "0.0", "above 0", []),
    ("train", "--batch-size", "0", "from 1 to 65536", []),
    ("train", "--window-length", "0", "from 1 to 65536", []),
    ("train", "--kernel-size", "0", "must be", TRANSFORMER),
    ("train", "--save-interval", "-1", "from 0 to 86400 seconds", []),
    ("train", "--ray-workers", "0", "from 1 to 4096", ["--ray", "local"]),
    ("train", "--ray-workers", "2", "needs --ray ADDRESS", []),
    ("train", "--ray-restarts", "-1", "from 0 to 1000000", ["--ray", "local"]),
    ("leaderboard", "--families", "gru,mamba", "one of ngram, rnn, gru, lstm, transformer", []),
    ("leaderboard", "--families", "gru,gru", "each family once", []),
    ("leaderboard", "--match", "luck", "one of seconds, parameters, flops", []),
    ("leaderboard", "--budget", "soon", "a duration such as 90s, 3m or 1h30m", []),
    ("leaderboard", "--seeds", "0", "from 1 to 1000", []),
    ("leaderboard", "--unit", "page", "one of stream, line", []),
    ("leaderboard", "--vocabulary", "words", "one of char, byte, sentencepiece", []),
    ("diagnose", "--checkpoint", "nowhere", "trains its own models; leave --checkpoint out", []),
    ("diagnose", "--families", "mamba", "one of ngram, rnn, gru, lstm, transformer", []),
    ("diagnose", "--budget", "soon", "a duration such as 90s, 3m or 1h30m", []),
    ("diagnose", "--seed", "-1", "from 0 to 2**63 - 1", []),
    ("export", "--format", "pickle", "one of torch-export, onnx, hf", []),
]
# Any text is a path or an address; what is wrong with one is said when it is used.
ANY_TEXT = {("train", "--ray")} | {(name, "--out") for name in GIVEN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flags")
    (folder / "text.txt").write_text("the cat sat on the mat.\n" * 40)
    config = ModelConfig(family="gru", vocab_size=5, hidden_size=16)
    checkpoint.save(folder / "model", build(config), CharVocabulary("abcd"), {})
    return folder


def run(name: str, arguments: list[str]) -> Any:
    app = typer.Typer()
    app.command()(COMMANDS[name])
    return CliRunner().invoke(app, arguments)


def typed_flags(name: str) -> Iterator[str]:
    """Those that take a value."""
    app = typer.Typer()
    app.command()(COMMANDS[name])
    for parameter in typer.main.get_command(app).params:
        if parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False):
            yield parameter.opts[0]


@pytest.mark.parametrize("case", BAD, ids=lambda case: " ".join(case[:3]))
def test_an_error_of_a_flag_names_it_with_its_value_and_what_is_allowed(
    case: tuple[str, str, str, str, list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, flag, value, allowed, others = case
    monkeypatch.chdir(folder)

    result = run(name, [*GIVEN[name], *others, flag, value])

    assert result.exit_code == 2, result.output
    (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("charlm: "))
    shown = value.removesuffix(".0")
    assert sentence.startswith(f"charlm: {flag} is ")
    assert shown.split(",")[-1] in sentence
    assert allowed in sentence
    assert sentence.endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_walks_every_flag(name: str) -> None:
    tried = {(command, flag) for command, flag, *_ in BAD} | ANY_TEXT

    assert {(name, flag) for flag in typed_flags(name)} <= tried


def test_every_size_has_a_flag() -> None:
    flags = {f"--{name.replace('_', '-')}" for name in SizeOptions.__dataclass_fields__}

    assert flags <= set(typed_flags("train"))
