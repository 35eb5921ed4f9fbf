"""A flag and an environment variable for every limit, made from where the limits are defined."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any

from charlm_server.config.flags import bounded
from charlm_server.config.limits import Limits

PANEL = "Limits; GetModel returns them to clients"


def with_limit_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command with a flag for each limit in place of its parameter `limits`.

    Raises ServeError, out of the command, for limits that contradict each other.
    """
    names = {parameter_name(limit): limit.name for limit in fields(Limits)}

    @functools.wraps(command)
    def flagged(**given: Any) -> None:
        bounds = {name: given.pop(flag) for flag, name in names.items()}
        command(**given, limits=lambda: Limits(**bounds))

    own = inspect.signature(command)
    kept = [parameter for name, parameter in own.parameters.items() if name != "limits"]
    parameters = [*kept, *map(_parameter, fields(Limits))]
    flagged.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    flagged.__annotations__ = {each.name: each.annotation for each in parameters}
    return flagged


def parameter_name(limit: Field[Any]) -> str:
    """Flags leave units to their help."""
    return limit.name.removesuffix("_s")


def _parameter(limit: Field[Any]) -> inspect.Parameter:
    name = parameter_name(limit)
    option = bounded(
        int if limit.type is int else float,
        limit.metadata["least"],
        limit.metadata["most"],
        names=[f"--{name.replace('_', '-')}"],
        envvar=f"CHARLM_{name.upper()}",
        help=limit.metadata["says"],
        metavar="SECONDS" if name != limit.name else None,
        rich_help_panel=PANEL,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=limit.default,
        annotation=Annotated[limit.type, option],
    )
