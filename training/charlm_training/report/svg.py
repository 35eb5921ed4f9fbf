"""Plots as SVG text, drawn by hand: a page is ready in milliseconds and needs no library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from charlm_training.report.plot import Curve, Plot

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 44
NUM_TICKS = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values from [low, high] to pixels from `start` to `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def svg(plot: Plot) -> str:
    """An <svg> element; points that are not finite are left out. Both axes are linear."""
    across, up = _scales(plot)
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(plot.title)}" font-family="sans-serif" font-size="12">',
            _text(LEFT, 16, plot.title, size=14),
            *_grid(across, up),
            *_labels(plot),
            *_lines(plot, across, up),
            *_legend(plot),
            "</svg>",
        )
    )


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers in [low, high]."""
    raw = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _scales(plot: Plot) -> tuple[Scale, Scale]:
    xs = [x for curve in plot.curves for x, _ in _points(curve)]
    ys = [y for curve in plot.curves for _, y in _points(curve)]
    ys += [height for _, height in plot.levels if math.isfinite(height)]
    return (
        Scale(*_span(xs), LEFT, WIDTH - RIGHT),
        Scale(*_span(ys), HEIGHT - BOTTOM, TOP),
    )


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A range that is never empty, with a little room at both ends."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def _points(curve: Curve) -> list[tuple[float, float]]:
    pairs = zip(curve.x, curve.y, strict=True)
    return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def _grid(across: Scale, up: Scale) -> Iterator[str]:
    for value in ticks(across.low, across.high):
        x = across(value)
        yield _line(x, TOP, x, HEIGHT - BOTTOM, "#8884")
        yield _text(x, HEIGHT - BOTTOM + 16, f"{value:g}", anchor="middle")
    for value in ticks(up.low, up.high):
        y = up(value)
        yield _line(LEFT, y, WIDTH - RIGHT, y, "#8884")
        yield _text(LEFT - 6, y + 4, f"{value:g}", anchor="end")


def _labels(plot: Plot) -> Iterator[str]:
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, plot.x_label, anchor="middle")
    yield (
        f'<g transform="rotate(-90 14 {HEIGHT / 2:.0f})">'
        f"{_text(14, HEIGHT / 2, plot.y_label, anchor='middle')}</g>"
    )


def _lines(plot: Plot, across: Scale, up: Scale) -> Iterator[str]:
    colors = plot.colors()
    for name, height in plot.levels:
        if math.isfinite(height):
            y = up(height)
            yield _line(LEFT, y, WIDTH - RIGHT, y, colors[name], is_dashed=True)
    for curve in plot.curves:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in _points(curve))
        dash = ' stroke-dasharray="6 4"' if curve.is_dashed else ""
        yield (
            f'<polyline points="{path}" fill="none" stroke="{colors[curve.name]}" '
            f'stroke-width="1.8"{dash}/>'
        )


def _legend(plot: Plot) -> Iterator[str]:
    for place, (name, color) in enumerate(plot.colors().items()):
        y = TOP + 14 + 16 * place
        yield _line(WIDTH - 190, y - 4, WIDTH - 168, y - 4, color)
        yield _text(WIDTH - 162, y, name)


def _line(
    x1: float, y1: float, x2: float, y2: float, color: str, *, is_dashed: bool = False
) -> str:
    dash = ' stroke-dasharray="6 4"' if is_dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" '
        f'stroke-width="1.5"{dash}/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="currentColor">{escape(text)}</text>'
    )
