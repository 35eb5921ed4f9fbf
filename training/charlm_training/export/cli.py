"""The command `charlm export`."""

from pathlib import Path
from typing import Annotated

import typer

from charlm_training.flags import clear_errors


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A trained checkpoint.")],
    out: Annotated[Path, typer.Option(help="Directory of the exported model.")],
    format_name: Annotated[
        str, typer.Option("--format", help="torch-export, onnx, or hf for transformers.")
    ] = "torch-export",
) -> None:
    """Export a model for other runtimes, after checking that it computes the same.

    [dim]charlm export book --out book-pt2
    charlm export book --format onnx --out book-onnx[/dim]
    """
    from charlm_model import checkpoint
    from charlm_training.export.bundle import export as write

    with clear_errors():
        worst = write(checkpoint.load(directory), format_name, out)
        print(
            f"Saved in {out}. Its log-probs differ from those of the checkpoint by at most "
            f"{worst:.1g} nats."
        )
