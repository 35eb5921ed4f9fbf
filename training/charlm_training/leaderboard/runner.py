"""Trains every entry with every seed, one after another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from charlm_training.budget import Clock
from charlm_training.corpus.dataset import DataOptions
from charlm_training.leaderboard.equal_cost import Entry
from charlm_training.leaderboard.result import LeaderboardRun
from charlm_training.monitoring.events import Evaluated, Event
from charlm_training.planning.options import TrainOptions
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardRunner:
    """Runs all entries on the same corpus."""

    corpus: str
    data: DataOptions
    clock: Clock
    is_interrupted: Callable[[], bool]
    announce: Callable[[str], None]

    def run(self, entries: Sequence[Entry], num_seeds: int) -> list[LeaderboardRun]:
        """All runs; after an interruption the finished ones, and the last one as far as it came."""
        results: list[LeaderboardRun] = []
        with tempfile.TemporaryDirectory(prefix="charlm-leaderboard-") as folder:
            for seed in range(num_seeds):
                for entry in entries:
                    if self.is_interrupted():
                        return results
                    if entry.family == "ngram" and seed:
                        continue  # counting has no random draws
                    results.append(self._one(entry, seed, Path(folder) / f"{entry.family}-{seed}"))
        return results

    def _one(self, entry: Entry, seed: int, out: Path) -> LeaderboardRun:
        curve: list[tuple[float, float]] = []

        def listen(event: Event) -> None:
            if isinstance(event, Evaluated):
                curve.append((event.elapsed_s, event.nats_per_token))

        options = TrainOptions(
            corpus=self.corpus,
            out=out,
            family=entry.family,
            device="cpu",  # where its sizes were probed
            budget=None if entry.seconds is None else f"{entry.seconds:.3f}s",
            steps=entry.steps,
            seed=seed,
            data=self.data,
            size=entry.size,
        )
        Workspace(out).prepare(force=False)
        report = Run(options, listen, self.is_interrupted, self.clock).train().report
        result = LeaderboardRun(family=entry.family, seed=seed, report=report, curve=curve)
        self.announce(f"{entry.family}, seed {seed}: {result.nats:.4f} nats per token")
        return result
