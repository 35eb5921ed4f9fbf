"""One run of a leaderboard."""

from __future__ import annotations

from dataclasses import dataclass, field

from charlm_training.report.report import Report


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaderboardRun:
    """One run: its figures, and how its loss fell."""

    family: str
    seed: int
    report: Report
    curve: list[tuple[float, float]] = field(default_factory=list)
    """Seconds of training, and nats per token on a slice of the validation text."""

    @property
    def nats(self) -> float:
        """Nats per token over all of the validation text, by the unit's last protocol."""
        value: float = self.report["validation"][-1]["nats_per_token"]
        return value
