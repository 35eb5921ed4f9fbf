"""A bad value of any flag, refused by a real server, is an error that names the flag as typed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from charlm_client.cli.main import app

pytestmark = pytest.mark.slow

MODEL = "fox"
BAD_VALUES: list[tuple[str, str, str]] = [
    # command and its other arguments, flag and value, what the error must say
    ("generate fox", "--temperature=-1", "; it must be from 0 to 100"),
    ("generate fox", "--top-k=-1", "from 0 to"),
    ("generate fox", "--top-p=2", "1"),
    ("generate fox", "--min-p=2", "1"),
    ("generate fox", "--typical-p=2", "1"),
    ("generate fox", "--repetition-penalty=-1", "0"),
    ("generate fox", "--presence-penalty=1e9", "100"),
    ("generate fox", "--frequency-penalty=1e9", "100"),
    ("generate fox", "--penalty-window=-1", "equal to 0"),
    ("generate fox", "--bias=7", "token id"),
    ("generate fox", "--bias=100000=1", "below"),
    ("generate fox", "--bias=-1=1", "from 0 to"),
    ("generate fox", "--seed=18446744073709551616", "from 0 to 18446744073709551615"),
    ("generate fox", "--max-tokens=0", "equal to 1"),
    ("generate fox", "--max-tokens=1000000000", "1000000"),
    ("generate fox", "--stop=", "1 to"),
    ("generate fox", "--max-time=0", "0 s"),
    ("generate fox", "--max-time=nan", "finite"),
    ("generate fox", "--regex=(", ""),
    ("generate fox", "--choice=", ""),
    ("generate fox", "--allowed=", ""),
    ("generate fox", "--constraint-mode=magic", "local_mask, rejection, smc"),
    ("generate fox", "--num-outputs=1000000", "64"),
    ("generate fox", "--model=none", "none"),
    ("generate", "\u0416", "--replace-unknown"),
    ("score fox", "--context=\u0416", "--replace-unknown"),
    ("score", "\u0416", "--replace-unknown"),
    ("score", "--file=BAD_TEXT", "--replace-unknown"),
    ("next fox", "--top-k=0", "equal to 1"),
    ("next fox", "--top-k=100000", "--json"),
    ("fill f_x", "--mark=ab", "; it must have one"),
    ("fill f_x", "--num=100000", "1000"),
    ("fill f___x", "--particles=1000000", "4096"),
    ("fill f_x", "--seed=18446744073709551616", "from 0 to"),
    ("top fox", "--length=100000", "64"),
    ("top fox", "--num=100000", "1000"),
    ("top fox", "--max-steps=1000000000", "1000000"),
    ("compare fox", "--prior=-1", ""),
    ("encode", "\u0416", "--replace-unknown"),
    ("decode", "100000", "below"),
    ("bench serve", "--streams=0", "1"),
    ("bench serve", "--rate=0", "0.001"),
    ("bench serve", "--duration=0", "0.1"),
    ("bench serve", "--warm-up=100", "--duration"),
    ("bench serve", "--prompt-length=x", "100-300"),
    ("bench serve", "--output-length=9-1", "100-300"),
    ("bench serve", "--output-length=1000000000", "1000000"),
    ("bench serve", "--slow-readers=2", "1"),
    ("bench serve", "--seed=18446744073709551616", "from 0 to"),
    ("bench serve", "--plot=a.png", ".svg"),
    ("state create fox", "--time-to-live=0", "0.001"),
    ("state create fox", "--time-to-live=1e9", "86400"),
    ("state import EMPTY", "--time-to-live=1e9", "86400"),
    ("health", "--timeout=0", "0.001"),
    ("models", "--color=pink", "auto, always, never"),
]
NEVER_REFUSED = {
    # switches, and what is looked up instead of checked
    *("--include-stop", "--ignore-end-of-text", "--replace-unknown", "--json", "--force"),
    *("--lines", "--total", "--skip-damaged-frames", "--checkpoint", "--server"),
    # those that need a state, or a server with --admin: tests/e2e/test_state_command.py
    *("--etag", "--position", "--as"),
}


def options(group: typer.Typer) -> Iterator[str]:
    for command in typer.main.get_command(group).commands.values():  # type: ignore[attr-defined]
        for each in getattr(command, "commands", {"": command}).values():
            yield from (max(p.opts, key=len) for p in each.params if p.param_type_name == "option")


def test_every_flag_is_tried() -> None:
    tried = {flag.partition("=")[0] for _, flag, _ in BAD_VALUES}
    plugins = {"--help"}

    assert set(options(app)) - tried - NEVER_REFUSED - plugins == set()


@pytest.mark.parametrize(("command", "flag", "said"), BAD_VALUES, ids=str)
def test_an_error_names_the_flag_as_typed(
    command: str, flag: str, said: str, server_address: str, tmp_path: Path
) -> None:
    (tmp_path / "BAD_TEXT").write_text("\u0416")
    (tmp_path / "EMPTY").write_bytes(b"")
    arguments = [*command.split(), flag, "--server", server_address]
    if "--model" not in flag and command.split()[0] not in ("health", "models"):
        arguments += [] if command.startswith("state import") else ["--model", MODEL]
    arguments = [
        each.replace("BAD_TEXT", str(tmp_path / "BAD_TEXT")).replace(
            "EMPTY", str(tmp_path / "EMPTY")
        )
        for each in arguments
    ]

    done = CliRunner().invoke(app, arguments, terminal_width=200)

    assert done.exit_code != 0
    error = " ".join((str(done.exception) + done.output).replace("│", "").split())
    assert said in error
    name = flag.partition("=")[0]
    if name.startswith("-") and name != "--model":
        is_usage = isinstance(done.exception, SystemExit)
        assert name in error if is_usage else str(done.exception).startswith(name)
