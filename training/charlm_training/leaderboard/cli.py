"""The command `charlm leaderboard`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from charlm_training.flags import AsJson, Corpus, clear_errors, shorten_spinning


def leaderboard(
    corpus: Corpus,
    families: Annotated[
        str, typer.Option(help="Families to train, separated by commas.")
    ] = "ngram,rnn,gru,lstm,transformer",
    match: Annotated[
        str,
        typer.Option(help="Equal cost: seconds, parameters (and seconds) or flops."),
    ] = "seconds",
    budget: Annotated[str, typer.Option(help="Wall-clock time of each run: 30s, 3m.")] = "30s",
    seeds: Annotated[int, typer.Option(help="Runs of each family, with different seeds.")] = 3,
    unit: Annotated[str, typer.Option(help="stream or line, as in charlm train.")] = "stream",
    vocabulary: Annotated[str, typer.Option(help="char, byte or sentencepiece.")] = "char",
    out: Annotated[Path, typer.Option(help="Directory of leaderboard.json, .csv and .png.")] = Path(
        "leaderboard"
    ),
    as_json: AsJson = False,
) -> None:
    """Train all families on one text at equal cost and rank them.

    [dim]charlm leaderboard book.txt --budget 1m
    charlm leaderboard book.txt --families gru,lstm --match parameters --seeds 5[/dim]
    """
    shorten_spinning()
    from rich.console import Console

    from charlm_training.corpus.dataset import DataOptions
    from charlm_training.leaderboard.compare import LeaderboardOptions, compare
    from charlm_training.leaderboard.output import save, table
    from charlm_training.run.signals import interruption

    progress = Console(stderr=True)
    with clear_errors(), interruption() as is_interrupted:
        options = LeaderboardOptions(
            corpus=corpus,
            families=families.split(","),
            match=match,
            budget=budget,
            num_seeds=seeds,
            data=DataOptions(unit=unit, vocabulary=vocabulary),
        )
        outcome = compare(options, is_interrupted, lambda line: progress.print(line, markup=False))
        paths = save(outcome.document, outcome.results, out)
        if as_json:
            print(json.dumps(outcome.document, ensure_ascii=False))
            return
        Console().print(table(outcome.standings))
        print(outcome.document["verdict"])
        print("Saved in " + ", ".join(map(str, paths)))
