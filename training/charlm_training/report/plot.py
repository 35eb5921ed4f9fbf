"""What a plot shows. `drawing` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Source: Wong (2011), "Points of view: Color blindness".
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Points joined by a line. Curves of one name share a color and one entry in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    is_dashed: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None
    """The lower and the upper edge of a shaded band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Curves, levels and their labels."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    levels: Sequence[tuple[str, float]] = ()
    """Horizontal lines with a name each."""
    is_log_x: bool = False
    is_log_y: bool = False

    def colors(self) -> dict[str, str]:
        """One for each name, in the order of their appearance."""
        names = dict.fromkeys([*(curve.name for curve in self.curves), *dict(self.levels)])
        return {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}
