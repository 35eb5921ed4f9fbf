"""The flags that several commands share. Every one is also an environment variable."""

from typing import Annotated

import typer

from charlm_client.cli.rendering import COLORS
from charlm_client.client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S

_ASKING = "Server and model"


def _known_color(color: str) -> str:
    """Raises BadParameter while the flags are parsed, before any call."""
    if color not in COLORS:
        raise typer.BadParameter(f"{color!r} is not one of {', '.join(COLORS)}.")
    return color


Server = Annotated[
    str,
    typer.Option(
        envvar="CHARLM_SERVER", help="Server address, HOST:PORT.", rich_help_panel=_ASKING
    ),
]
Model = Annotated[
    str,
    typer.Option(
        envvar="CHARLM_MODEL",
        help="Model name; optional if the server has only one model.",
        rich_help_panel=_ASKING,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        envvar="CHARLM_TIMEOUT",
        help="Time limit for the whole call, in seconds.",
        min=0.001,
        rich_help_panel=_ASKING,
    ),
]
ReplaceUnknown = Annotated[
    bool,
    typer.Option(
        "--replace-unknown",
        help="Replace characters outside the model's vocabulary instead of refusing them.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Color = Annotated[
    str,
    typer.Option(
        envvar="CHARLM_COLOR",
        help="Color the output: auto (only on a terminal), always or never.",
        callback=_known_color,
    ),
]

SERVER_DEFAULT = DEFAULT_ADDRESS
TIMEOUT_DEFAULT = DEFAULT_TIMEOUT_S
