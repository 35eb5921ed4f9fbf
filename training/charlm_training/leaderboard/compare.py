"""A whole leaderboard, from flags to a ranking."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm_training.budget import Clock, parse_duration
from charlm_training.corpus.dataset import DataOptions, read_data
from charlm_training.corpus.reader import open_corpus
from charlm_training.errors import Interrupted, InvalidOption
from charlm_training.leaderboard.equal_cost import MATCHES, Entry, EntryPlanner
from charlm_training.leaderboard.result import LeaderboardRun
from charlm_training.leaderboard.runner import LeaderboardRunner
from charlm_training.leaderboard.standing import Standing, standings, verdict
from charlm_training.planning.options import check_family
from charlm_training.report.report import versions_section

MOST_SEEDS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardOptions:
    """The options of `charlm leaderboard`."""

    corpus: str
    families: Sequence[str]
    match: str = "seconds"
    budget: str = "30s"
    num_seeds: int = 3
    data: DataOptions

    def __post_init__(self) -> None:
        for family in self.families:
            check_family(family, "--families")
        if len(set(self.families)) < len(self.families):
            names = ",".join(self.families)
            raise InvalidOption(f"--families is {names!r}; it must name each family once.")
        if self.match not in MATCHES:
            raise InvalidOption(
                f"--match is {self.match!r}; it must be one of {', '.join(MATCHES)}."
            )
        if not 1 <= self.num_seeds <= MOST_SEEDS:
            raise InvalidOption(f"--seeds is {self.num_seeds}; it must be from 1 to {MOST_SEEDS}.")
        parse_duration(self.budget)


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaderboard:
    """The runs, the ranking, and the content of leaderboard.json."""

    results: list[LeaderboardRun]
    standings: list[Standing]
    document: dict[str, Any]


def compare(
    options: LeaderboardOptions,
    is_interrupted: Callable[[], bool],
    announce: Callable[[str], None],
    clock: Clock = time.monotonic,
) -> Leaderboard:
    """Match the families, train them all, rank them.

    Raises Interrupted when it was interrupted before the first run was done.
    """
    runner = LeaderboardRunner(
        corpus=options.corpus,
        data=options.data,
        clock=clock,
        is_interrupted=is_interrupted,
        announce=announce,
    )
    results = runner.run(_entries(options, clock), options.num_seeds)
    if not results:
        raise Interrupted("Interrupted before the first run was done; there is nothing to rank.")
    ranked = standings(results)
    return Leaderboard(
        results=results, standings=ranked, document=_document(options, results, ranked)
    )


def _entries(options: LeaderboardOptions, clock: Clock) -> list[Entry]:
    corpus = open_corpus(options.corpus)
    with tempfile.TemporaryDirectory(prefix="charlm-leaderboard-") as folder:
        data = read_data(corpus, corpus.scan(), options.data, Path(folder))
        planner = EntryPlanner(data=data, seconds=parse_duration(options.budget), clock=clock)
        return planner.entries(list(options.families), options.match)


def _document(
    options: LeaderboardOptions, results: Sequence[LeaderboardRun], ranked: Sequence[Standing]
) -> dict[str, Any]:
    return {
        "match": options.match,
        "budget": options.budget,
        "verdict": verdict(ranked, options.match),
        "standings": [standing.to_row() for standing in ranked],
        "data": results[0].report["data"],
        "versions": versions_section(),
        "runs": [
            {
                "family": result.family,
                "seed": result.seed,
                "validation": result.report["validation"],
                "model": result.report["model"],
                "training": result.report["training"],
                "curve": [[round(s, 3), round(nats, 5)] for s, nats in result.curve],
            }
            for result in results
        ],
    }
