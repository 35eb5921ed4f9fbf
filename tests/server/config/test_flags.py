"""Every flag of `serve` and `serve-ray` with a bad value: the sentence names flag, value, range."""

import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from charlm_server.cli import serve
from charlm_server.cluster.cli import serve_ray

# What a flag that is no number says of a bad value, after its name.
TEXTS = {
    "--host": ("0.0.0.0", "is 0.0.0.0, which other machines can reach"),
    "--tls-cert": ("missing", "needs both --tls-cert and --tls-key"),
    "--tls-key": ("missing", "needs both --tls-cert and --tls-key"),
    "--tls-client-ca": ("missing", "needs both --tls-cert and --tls-key"),
    "--log-level": ("loud", "is 'loud'; it must be debug, info, warning or error."),
    "--log-format": ("xml", "is 'xml'; it must be text or json."),
    "--metrics-host": ("0.0.0.0", "is 0.0.0.0, but without --metrics-port"),
    "--mixture": ("both", "'both' is not of the form NAME=KIND:MODEL@WEIGHT"),
    "--replicas": ("many", "is 'many'; it must be N or N:M, as in 2 or 1:8."),
}
# Files and addresses, which are tried when the server starts; tests beside them say how.
TRIED_AT_THE_START = {"--tokens", "--model-root", "--device", "--otlp-endpoint", "--address"}


def command_of(function: Any) -> Any:
    app = typer.Typer()
    app.command()(function)
    return app


def flags_of(function: Any) -> list[Any]:
    parameters = typer.main.get_command(command_of(function)).params
    return [each for each in parameters if each.opts[0].startswith("--") and each.name != "help"]


def cases(function: Any) -> list[Any]:
    return [
        pytest.param(function, each, id=f"{function.__name__} {each.opts[0]}")
        for each in flags_of(function)
        if "completion" not in each.name
    ]


def refusal_of(function: Any, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command_of(function), ["no-such-folder", *arguments])
    return done.exit_code, done.stderr


@pytest.mark.parametrize(("function", "flag"), [*cases(serve), *cases(serve_ray)])
def test_a_bad_value_is_refused_with_the_flag_as_typed(
    function: Any, flag: Any, tmp_path: Path
) -> None:
    name = flag.opts[0]
    kind = get_args(inspect.signature(function).parameters[flag.name].annotation)[0]
    if kind is bool or name in TRIED_AT_THE_START:
        return
    extra = ["--allow-insecure"] if function is serve_ray else []
    if name in TEXTS:
        value, words = TEXTS[name]
        folder = tmp_path / "book"
        folder.mkdir()
        (folder / "config.json").touch()
        done = CliRunner().invoke(command_of(function), [str(folder), *extra, name, value])
        assert done.exit_code == 1
        assert f"charlm: {name} {words}" in done.stderr
        return
    for value in ("-1", "9" * 20):
        code, sentence = refusal_of(function, *extra, name, value)

        assert code == 2
        shown = float(value) if "float" in str(kind) else value
        assert sentence.startswith(f"charlm: {name} is {shown}; it must be from ")
    code, sentence = refusal_of(function, *extra, name, "many")

    assert code == 2
    assert f"charlm: {name} is 'many'; it must be a " in sentence
    assert "number from " in sentence


def test_a_value_at_either_end_of_its_range_is_taken() -> None:
    for value in ("1", "4096"):
        code, sentence = refusal_of(serve, "--max-batch-size", value)

        assert (code, "no directory" in sentence) == (1, True)  # it came as far as the checkpoint


def test_watching_without_a_folder_says_which_flag_is_missing() -> None:
    code, sentence = refusal_of(serve, "--watch", "5")

    assert (code, sentence) == (
        1,
        "charlm: --watch needs a folder to check; give --model-root DIR.\n",
    )
