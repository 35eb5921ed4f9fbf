"""Curves as pictures: PNG for files, SVG for pages. One look for every plot of the project."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from charlm_training.errors import OutputFailed

# Wong (2011), "Points of view: Color blindness": told apart by everyone.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH_IN, HEIGHT_IN, DPI = 7.0, 4.2, 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Points joined by a line. Curves of one name share a color and one entry in the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    is_dashed: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None
    """The lower and the upper edge of what is shaded around the curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """What is to be seen, free of how it is drawn."""

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    levels: Sequence[tuple[str, float]] = ()
    """Horizontal lines with a name each."""
    is_log_x: bool = False
    is_log_y: bool = False


def draw(plot: Plot) -> Figure:
    """A figure of its own: no window, no state shared with other figures."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys([*(curve.name for curve in plot.curves), *dict(plot.levels)]))
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}
    for curve in plot.curves:
        _draw_curve(axes, curve, colors[curve.name])
    for name, height in plot.levels:
        axes.axhline(height, color=colors[name], linestyle="--", linewidth=1.2, label=name)
    _decorate(axes, plot)
    return figure


def save_png(plot: Plot, path: Path) -> None:
    try:
        draw(plot).savefig(path, dpi=DPI, format="png")
    except OSError as error:
        raise OutputFailed(f"Cannot write the plot {path}: {error.strerror}.") from error


def svg(plot: Plot) -> str:
    """An <svg> element; the same plot always gives the same text."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": plot.title}):
        draw(plot).savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw_curve(axes: Axes, curve: Curve, color: str) -> None:
    style = "--" if curve.is_dashed else "-"
    marker = "o" if len(curve.x) <= 20 else None
    axes.plot(
        curve.x, curve.y, style, color=color, label=curve.name,
        linewidth=1.5, marker=marker, markersize=3,
    )  # fmt: skip
    if curve.band is not None:
        axes.fill_between(curve.x, *curve.band, color=color, alpha=0.15, linewidth=0)


def _decorate(axes: Axes, plot: Plot) -> None:
    axes.set_title(plot.title, fontsize=11)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.is_log_x:
        axes.set_xscale("log", base=2)
    if plot.is_log_y:
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if len(unique) > 1:
        axes.legend(list(unique.values()), list(unique), fontsize=8, frameon=False)
