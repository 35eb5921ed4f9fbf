"""The result of a diagnosis: rows of figures, plots and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from charlm_training.report.drawing import save_png
from charlm_training.report.plot import Plot
from charlm_training.report.tables import Row, make_directory, save_csv


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """One finding about one text or some models."""

    name: str
    sentence: str
    rows: Sequence[Row]
    plots: Sequence[Plot]

    def save(self, directory: Path) -> list[Path]:
        """NAME.csv and NAME.png, or NAME-1.png and so on where there are several plots."""
        make_directory(directory)
        table = directory / f"{self.name}.csv"
        save_csv(self.rows, table)
        paths = [table]
        for number, plot in enumerate(self.plots, 1):
            ending = f"-{number}" if len(self.plots) > 1 else ""
            paths.append(directory / f"{self.name}{ending}.png")
            save_png(plot, paths[-1])
        return paths
