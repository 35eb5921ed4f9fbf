"""What the commands of training share: flags, exit codes, error messages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from charlm_training.errors import Interrupted, InvalidOption, TrainingError

_PLACES = (
    "in UTF-8: a file, a folder, a pattern such as 'books/*.txt', builtin:python-docs or "
    "builtin:python-source."
)
Corpus = Annotated[str, typer.Argument(metavar="CORPUS", help=f"Text to train on, {_PLACES}")]
Measured = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS",
        help=f"Text to evaluate on, {_PLACES} If the checkpoint was trained on this text, only "
        "the validation part is evaluated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")]

WRONG_USAGE, INTERRUPTED = 2, 130
# How long a thread of torch spins while it waits for another; the reason is in `step.threads`.
SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "2000"


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print an error as one sentence on stderr. Exit code 2 for flags, 130 for Ctrl-C, else 1."""
    from charlm_model.errors import ModelError

    try:
        yield
    except InvalidOption as error:
        typer.echo(f"charlm: {error}", err=True)
        raise typer.Exit(WRONG_USAGE) from error
    except Interrupted as error:
        typer.echo(f"charlm: {error}", err=True)
        raise typer.Exit(INTERRUPTED) from error
    except (TrainingError, ModelError) as error:
        typer.echo(f"charlm: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("charlm: interrupted; nothing more was saved.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def shorten_spinning() -> None:
    """Must be called before torch is imported. A value in the environment is left alone."""
    os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)
