"""Draws plots through matplotlib: as PNG files, and as SVG elements for a page."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from charlm_training.errors import OutputFailed
from charlm_training.report.plot import Curve, Plot

WIDTH_IN, HEIGHT_IN, DPI = 7.0, 4.2, 120
# In SVG, black becomes the color of the page's text, so that axes are readable in dark mode too.
BLACK, COLOR_OF_TEXT = "#000000", "currentColor"
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


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
        with _settings(plot):
            draw(plot).savefig(path, dpi=DPI, format="png")
    except OSError as error:
        raise OutputFailed(f"Cannot write the plot {path}: {error.strerror}.") from error


def svg(plot: Plot) -> str:
    """An <svg> element, the same on every call. Text stays text; points not finite are left out."""
    buffer = io.StringIO()
    with _settings(plot):
        draw(plot).savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    document = buffer.getvalue().replace(BLACK, COLOR_OF_TEXT)
    attributes = f'role="img" aria-label="{escape(plot.title)}" fill="{COLOR_OF_TEXT}"'
    # Inside a page there is no place for the XML declaration before the element.
    return f"<svg {attributes} " + document.partition("<svg ")[2].rstrip()


def _settings(plot: Plot) -> Any:
    """`$` is no formula. Names of SVG definitions depend on the title: a page has several plots."""
    return rc_context(
        {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": plot.title}
    )


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
