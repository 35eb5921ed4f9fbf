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
            help="Diagnosis: gradient-flow, truncation, context, order or memorization.",
        ),
    ],
    corpus: Corpus,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="Diagnose this checkpoint (repeatable) instead of training models."),
    ] = None,
    families: Annotated[
        str | None, typer.Option(help="Families to train, separated by commas.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Wall-clock time of each training run.")] = "20s",
    seed: Annotated[int, typer.Option(help="Seed of every random generator.")] = 0,
    out: Annotated[Path, typer.Option(help="Directory of the CSV and PNG files.")] = Path(
        "diagnosis"
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the finding as one JSON object.")
    ] = False,
) -> None:
    """Measure a property of a model or a text; write a CSV, a PNG and one sentence.

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
