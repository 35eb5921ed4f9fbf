"""Plots as PNG files, through matplotlib."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from charlm_training.errors import OutputFailed
from charlm_training.report.plot import Curve, Plot

WIDTH_IN, HEIGHT_IN, DPI = 7.0, 4.2, 120


def draw(plot: Plot) -> Figure:
    """A figure of its own: no window, no state shared with other figures."""
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.add_subplot()
    colors = plot.colors()
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
