"""Flags and error messages that `charlm serve` and `charlm serve-ray` share."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from charlm_server.errors.base import ServeError

NO_BOUND = 2**31 - 1  # gRPC counts in 31 bits; --help does not mention it
NOUNS = {int: "a whole number", float: "a number"}


def bounded(
    kind: type[int] | type[float],
    least: float,
    most: float = NO_BOUND,
    *,
    help: str,
    names: Iterable[str] = (),
    **option: Any,
) -> Any:
    """An option for a number from `least` to `most`; `option` is what typer.Option takes.

    Another value ends the command with status 2 and a sentence that names the flag and the range.
    """
    allowed = f"from {least:g} to {most:.0f}"

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if isinstance(value, str):
            _refuse(param, repr(value), f"{NOUNS[kind]} {allowed}")
        if value is not None and not least <= value <= most:
            _refuse(param, value, allowed)
        return value

    shown = allowed if most < NO_BOUND else f"at least {least:g}"
    return typer.Option(
        *names,
        parser=_parser_of(kind),
        callback=check,
        help=f"{help} [dim]({shown})[/dim]",
        **option,
    )


def _refuse(param: typer.CallbackParam, value: object, allowed: str) -> NoReturn:
    typer.echo(f"charlm: {param.opts[0]} is {value}; it must be {allowed}.", err=True)
    raise typer.Exit(2)


def _parser_of(kind: type[int] | type[float]) -> Callable[[Any], Any]:
    """Passes text that is not a number to the check, which names the flag and its range."""

    def parse(text: Any) -> Any:
        try:
            return kind(text)
        except ValueError:
            return str(text)

    parse.__name__ = kind.__name__  # the type that --help shows
    return parse


@contextmanager
def exiting_with_a_message() -> Iterator[None]:
    """Ends the command with status 1 and one sentence where the server cannot start."""
    try:
        yield
    except ServeError as error:
        typer.echo(f"charlm: {error}", err=True)
        raise typer.Exit(1) from error


Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="DIR...",
        envvar="CHARLM_CHECKPOINTS",
        help="Checkpoints to serve, each DIR or NAME=DIR; a folder of checkpoints serves them all.",
    ),
]
Mixtures = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=KIND:MODEL@WEIGHT,...",
        envvar="CHARLM_MIXTURE",
        help="Also serve a mixture of several models: linear, log_linear or online.",
    ),
]
Tokens = Annotated[
    Path | None,
    typer.Option(
        envvar="CHARLM_TOKENS", help="Accept only callers with a token from this TOML file."
    ),
]
AllowInsecure = Annotated[
    bool,
    typer.Option(
        envvar="CHARLM_ALLOW_INSECURE",
        help="Allow connections from other machines without encryption.",
    ),
]
DrainGrace = Annotated[
    float,
    bounded(
        float,
        0,
        envvar="CHARLM_DRAIN_GRACE",
        metavar="SECONDS",
        help="Time for running calls to finish after SIGTERM.",
    ),
]
