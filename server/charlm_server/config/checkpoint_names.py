"""Converts arguments of the command line to checkpoints and their resource names."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from charlm_server.errors.base import ServeError

MARKER = "config.json"  # what every checkpoint has
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def named_checkpoints(arguments: Iterable[str]) -> dict[str, Path]:
    """Resource names and directories of all arguments, each DIR or NAME=DIR.

    A directory that is not a checkpoint but holds some means all of them.
    """
    found: dict[str, Path] = {}
    for name, directory in (pair for argument in arguments for pair in _pairs(argument)):
        resource = f"models/{checked_name(name, directory)}"
        if resource in found:
            raise ServeError(
                f"Both {found[resource]} and {directory} would be served as {resource}; "
                f"name one of them: OTHER={directory}"
            )
        found[resource] = directory
    return found


def _pairs(argument: str) -> Iterator[tuple[str, Path]]:
    name, equals, path = argument.partition("=")
    if equals and not Path(argument).exists():
        yield name, _existing(Path(path))
        return
    directory = _existing(Path(argument))
    if (directory / MARKER).exists():
        yield directory.resolve().name, directory
        return
    inside = sorted(path.parent for path in directory.glob(f"*/{MARKER}"))
    if not inside:
        raise ServeError(
            f"{directory} is not a checkpoint and holds none (no {MARKER} in it or just below); "
            "train one first: charlm train CORPUS --out DIR"
        )
    yield from ((path.name, path) for path in inside if not path.name.startswith("."))


def _existing(directory: Path) -> Path:
    if not directory.exists():
        raise ServeError(f"There is no directory {directory}; check the path.")
    if not directory.is_dir():
        raise ServeError(f"{directory} is a file, but a checkpoint is a directory.")
    return directory


def checked_name(name: str, source: object) -> str:
    """The name, if a model can have it; `source` is what is to be served under it."""
    if not NAME.fullmatch(name):
        raise ServeError(
            f"{name!r} cannot name a model: use 1 to 63 letters, digits, '.', '_' or '-'. "
            f"Give {source} another name: NAME={source}"
        )
    return name
