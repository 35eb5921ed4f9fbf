"""Ranks the runs of a leaderboard, and says in one sentence whether the best is clearly so."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from charlm_training.leaderboard.result import LeaderboardRun
from charlm_training.report.tables import Row

# Means differ clearly if they are this many standard errors of their difference apart.
CLEAR = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One family over all seeds."""

    family: str
    num_seeds: int
    nats: float
    sd: float
    bits_per_character: float
    num_parameters: int
    tokens: float
    seconds: float

    def to_row(self) -> Row:
        return {
            "family": self.family,
            "seeds": self.num_seeds,
            "nats_per_token": round(self.nats, 5),
            "sd_nats": round(self.sd, 5),
            "bits_per_character": round(self.bits_per_character, 5),
            "parameters": self.num_parameters,
            "tokens": round(self.tokens),
            "seconds": round(self.seconds, 2),
        }


def standings(results: Sequence[LeaderboardRun]) -> list[Standing]:
    """The families, the best first."""
    families = dict.fromkeys(result.family for result in results)
    made = [_standing([each for each in results if each.family == family]) for family in families]
    return sorted(made, key=lambda standing: standing.nats)


def _standing(results: Sequence[LeaderboardRun]) -> Standing:
    nats = [result.nats for result in results]
    first = results[0].report
    return Standing(
        family=results[0].family,
        num_seeds=len(results),
        nats=statistics.mean(nats),
        sd=statistics.stdev(nats) if len(nats) > 1 else 0.0,
        bits_per_character=statistics.mean(
            result.report["validation"][-1]["bits_per_character"] for result in results
        ),
        num_parameters=first["model"]["num_parameters"],
        tokens=statistics.mean(result.report["training"]["tokens"] for result in results),
        seconds=statistics.mean(result.report["training"]["elapsed_s"] for result in results),
    )


def verdict(ranked: Sequence[Standing], match: str) -> str:
    """The best family, and whether its lead exceeds the spread between seeds."""
    best = ranked[0]
    said = f"At equal {match}, {best.family} is best with {best.nats:.4f} nats per token"
    if len(ranked) == 1:
        return f"{said}; no other family was trained."
    second = ranked[1]
    gap = second.nats - best.nats
    said = f"{said}, {gap:.4f} below {second.family}"
    if max(best.num_seeds, second.num_seeds) == 1:
        return f"{said}; with one seed each, the spread between seeds is unknown."
    error = (best.sd**2 / best.num_seeds + second.sd**2 / second.num_seeds) ** 0.5
    if gap > CLEAR * error:
        return f"{said}, which is more than seeds explain (standard error {error:.4f})."
    return f"{said}, which seeds alone could explain (standard error {error:.4f})."
