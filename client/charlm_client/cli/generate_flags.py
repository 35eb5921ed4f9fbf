"""What the flags of `charlm generate` mean that are more than one value."""

from typing import cast, get_args

import typer

from charlm_client.types import Constraint, ConstraintMode

DEFAULT_MODE = "local_mask"


def constraint_of(
    regex: str | None, choices: list[str] | None, allowed: str | None, mode: str
) -> Constraint | None:
    known = get_args(ConstraintMode)
    if mode not in known:
        raise typer.BadParameter(
            f"{mode!r} is not one of {', '.join(known)}.", param_hint="--constraint-mode"
        )
    if regex is None and not choices and allowed is None:
        if mode != DEFAULT_MODE:
            raise typer.BadParameter(
                f"{mode!r} needs a language: give --regex, --choice or --allowed.",
                param_hint="--constraint-mode",
            )
        return None
    return Constraint(
        regex=regex,
        choices=tuple(choices or ()),
        allowed_characters=allowed,
        mode=cast(ConstraintMode, mode),
    )


def bias_of(text: str) -> tuple[int, float]:
    token_id, _, nats = text.partition("=")
    try:
        return int(token_id), float(nats)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} must be a token id, = and nats, for instance 7=-2.5.", param_hint="--bias"
        ) from None
