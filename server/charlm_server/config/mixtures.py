"""Mixtures as the command line names them: NAME=KIND:MODEL@WEIGHT,MODEL@WEIGHT,..."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import isfinite

from charlm_server.config.checkpoint_names import checked_name
from charlm_server.errors.base import ServeError

KINDS = ("linear", "log_linear", "online")
FORM = "NAME=KIND:MODEL@WEIGHT,MODEL@WEIGHT, for instance both=online:austen@0.5,darwin@0.5"


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureConfig:
    """Models of this server that are served as one mixture."""

    kind: str
    members: tuple[str, ...]  # resource names
    weights: tuple[float, ...]


def named_mixtures(arguments: Iterable[str], loaded: Collection[str]) -> dict[str, MixtureConfig]:
    """Mixtures by resource name; their members are among the loaded. Raises ServeError."""
    found: dict[str, MixtureConfig] = {}
    for argument in arguments:
        name, mixture = _parsed(argument)
        if name in found or name in loaded:
            raise ServeError(f"Two models would be served as {name}; name the mixture otherwise.")
        for member in mixture.members:
            if member not in loaded:
                names = ", ".join(sorted(loaded))
                raise ServeError(
                    f"The mixture {name} names {member}, which is not loaded; loaded: {names}."
                )
        found[name] = mixture
    return found


def _parsed(argument: str) -> tuple[str, MixtureConfig]:
    name, equals, rest = argument.partition("=")
    kind, colon, members = rest.partition(":")
    if not equals or not colon or kind not in KINDS:
        kinds = ", ".join(KINDS)
        raise ServeError(
            f"--mixture {argument!r} is not of the form {FORM}; a KIND is one of {kinds}."
        )
    pairs = [_member(member, argument) for member in members.split(",")]
    mixture = MixtureConfig(
        kind=kind,
        members=tuple(member for member, _ in pairs),
        weights=tuple(weight for _, weight in pairs),
    )
    return f"models/{checked_name(name, argument)}", mixture


def _member(text: str, argument: str) -> tuple[str, float]:
    """A model and its weight; all weigh alike where none is given."""
    model, at, number = text.strip().partition("@")
    try:
        weight = float(number) if at else 1.0
    except ValueError:
        weight = float("nan")
    if not model or not isfinite(weight):
        raise ServeError(f"{text!r} in --mixture {argument!r} is not of the form MODEL@WEIGHT.")
    return model if model.startswith("models/") else f"models/{model}", weight
