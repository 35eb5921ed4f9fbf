"""Whether commands, flags, files, targets and extras of a printed command exist."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import typer
import yaml

from charlm_client.cli import plugins
from charlm_client.cli.main import app
from tests.docs.blocks import ROOT

# typer brings a click of its own along, so its classes are reached through typer's.
COMMANDS: Any = typer.main.get_command(app)
FOLDERS = ("tests/", "benchmarks/", "deploy/", "docs/", "proto/", "charlm_")
PLACES = [ROOT, *(ROOT / folder for folder in ("server", "model", "client", "training", "proto"))]


def problems(words: list[str]) -> list[str]:
    """What does not exist, in sentences."""
    return [
        *_of_charlm(words),
        *_of_paths(words),
        *_of_make(words),
        *_of_extras(words),
        *_of_compose(words),
    ]


def options() -> set[str]:
    """All flags of all commands."""
    return {flag for command in _all_commands(COMMANDS) for flag in _flags(command)}


def _all_commands(command: Any) -> Iterator[Any]:
    yield command
    for name, each in getattr(command, "commands", {}).items():
        is_plugin = command is COMMANDS and name in plugins.PLUGINS
        yield from _all_commands(_plugin(name) if is_plugin else each)


def _plugin(name: str) -> Any:
    return typer.main.get_command(plugins.load(name))


def _flags(command: Any) -> set[str]:
    return {
        "--help",
        *(flag for option in command.params for flag in [*option.opts, *option.secondary_opts]),
    }


def _of_charlm(words: list[str]) -> Iterator[str]:
    if "charlm" not in words:
        return
    command, at_top = COMMANDS, True
    for word in words[words.index("charlm") + 1 :]:
        flag = word.split("=")[0]
        if re.fullmatch(r"--?[a-z][a-z-]*", flag):
            if flag not in _flags(command):
                yield f"{command.name} has no {flag}"
        elif hasattr(command, "commands"):
            if word in command.commands:
                command = (
                    _plugin(word) if at_top and word in plugins.PLUGINS else command.commands[word]
                )
                at_top = False
            elif re.fullmatch(r"[a-z-]+", word):
                yield f"there is no command {word}"


def _of_paths(words: list[str]) -> Iterator[str]:
    for word in words:
        path = word.split("::")[0].split("#")[0]
        is_literal = not set("*{}<>$ ") & set(path)
        if is_literal and path.startswith(FOLDERS) and "/" in path and not _exists(path):
            yield f"there is no {path}"


def _exists(path: str) -> bool:
    return any(next(place.glob(f"{path.rstrip('/')}*"), None) for place in PLACES)


def _of_make(words: list[str]) -> Iterator[str]:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    if "make" in words:
        named = [word for word in words[words.index("make") + 1 :] if re.fullmatch("[a-z]+", word)]
        yield from (f"make has no target {target}" for target in named if target not in targets)


def _of_extras(words: list[str]) -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"(?:charlm|\.whl)\[([\w,]+)\]", shlex.join(words)):
        for extra in extras.split(","):
            if extra not in project["optional-dependencies"]:
                yield f"charlm has no extra {extra}"


def _of_compose(words: list[str]) -> Iterator[str]:
    if words[:2] != ["docker", "compose"]:
        return
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    profiles = {profile for each in services.values() for profile in each.get("profiles", [])}
    if "--profile" in words and words[words.index("--profile") + 1] not in profiles:
        yield f"no service has the profile {words[words.index('--profile') + 1]}"
