"""A leaderboard as files: leaderboard.json, .csv and .png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from charlm_training.leaderboard.result import LeaderboardRun
from charlm_training.leaderboard.standing import Standing
from charlm_training.report.drawing import save_png
from charlm_training.report.plot import Curve, Plot
from charlm_training.report.tables import make_directory, save_csv, save_json


def save(
    document: dict[str, Any], results: Sequence[LeaderboardRun], directory: Path
) -> list[Path]:
    """Write all three; returns their paths."""
    make_directory(directory)
    paths = [directory / f"leaderboard.{kind}" for kind in ("json", "csv", "png")]
    save_json(document, paths[0])
    save_csv(document["standings"], paths[1])
    save_png(curves(results), paths[2])
    return paths


def curves(results: Sequence[LeaderboardRun]) -> Plot:
    """Loss against seconds, one curve a seed; a family that is counted is a level."""
    falling = [
        Curve(name=result.family, x=[x for x, _ in result.curve], y=[y for _, y in result.curve])
        for result in results
        if result.curve
    ]
    levels = [(result.family, result.nats) for result in results if not result.curve]
    return Plot(
        title="Loss on a slice of the validation text",
        x_label="seconds of training",
        y_label="nats per token",
        curves=falling,
        levels=levels,
    )


def table(ranked: Sequence[Standing]) -> Table:
    # Eight columns of large runs fit into a terminal of 80.
    shown = Table(box=box.SIMPLE_HEAD, padding=0)
    shown.add_column("family", no_wrap=True)
    for name in ("nats/token", "sd", "bits/char", "parameters", "tokens", "seconds", "seeds"):
        shown.add_column(name, justify="right", no_wrap=True)
    for each in ranked:
        shown.add_row(
            each.family,
            f"{each.nats:.4f}",
            f"{each.sd:.4f}" if each.num_seeds > 1 else "",
            f"{each.bits_per_character:.4f}",
            f"{each.num_parameters:,}",
            f"{each.tokens:,.0f}",
            f"{each.seconds:.1f}",
            str(each.num_seeds),
        )
    return shown
