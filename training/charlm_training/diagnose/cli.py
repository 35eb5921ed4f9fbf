"""The command `charlm diagnose`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from charlm_training.flags import Corpus, clear_errors, shorten_spinning


def diagnose(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="gradient-flow, truncation, context, order or memorization.",
        ),
    ],
    corpus: Corpus,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Examine this checkpoint (may be repeated) instead of training."),
    ] = None,
    families: Annotated[
        str | None, typer.Option(help="What to train for it, with commas between.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Wall clock of every training.")] = "20s",
    seed: Annotated[int, typer.Option(help="Decides every random choice.")] = 0,
    out: Annotated[Path, typer.Option(help="Directory for the CSV and PNG.")] = Path("diagnosis"),
    as_json: Annotated[bool, typer.Option("--json", help="Print rows and sentence.")] = False,
) -> None:
    """Measure why a model learns what it learns: a CSV, a PNG and a sentence.

    [dim]charlm diagnose gradient-flow book.txt
    charlm diagnose context book.txt --checkpoint book[/dim]
    """
    shorten_spinning()
    from rich.console import Console

    from charlm_training.diagnose.examine import DiagnoseOptions, examine
    from charlm_training.run.signals import interruption

    progress = Console(stderr=True)
    with (
        clear_errors(),
        interruption() as is_interrupted,
        tempfile.TemporaryDirectory(prefix="charlm-diagnose-") as folder,
    ):
        options = DiagnoseOptions(
            what=what,
            corpus=corpus,
            checkpoints=tuple(checkpoint or ()),
            families=None if families is None else tuple(families.split(",")),
            budget=budget,
            seed=seed,
        )
        found = examine(
            options, Path(folder), is_interrupted, lambda line: progress.print(line, markup=False)
        )
        paths = found.save(out)
        if as_json:
            print(json.dumps({"sentence": found.sentence, "rows": list(found.rows)}))
            return
        print(found.sentence)
        print("Saved in " + ", ".join(map(str, paths)))
