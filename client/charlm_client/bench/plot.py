"""A plot of characters per second over time, as SVG without a plotting library."""

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 320, 56


def svg(points: Sequence[tuple[float, float]], title: str) -> str:
    """Both axes begin at 0 and have labels at their ends."""
    last_s = max(at for at, _ in points)
    most = max(max(rate for _, rate in points), 1.0)
    across, up = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    line = " ".join(
        f"{MARGIN + across * at / last_s:.1f},{HEIGHT - MARGIN - up * rate / most:.1f}"
        for at, rate in points
    )
    base = HEIGHT - MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{MARGIN}" y="24" font-size="14">{escape(title)}</text>',
            f'<path d="M{MARGIN},{MARGIN} V{base} H{WIDTH - MARGIN}" fill="none" stroke="black"/>',
            f'<text x="{MARGIN}" y="{MARGIN - 6}">{most:,.0f} characters/s</text>',
            f'<text x="{MARGIN - 14}" y="{base + 4}">0</text>',
            f'<text x="{WIDTH - MARGIN}" y="{base + 18}" text-anchor="end">{last_s:.1f} s</text>',
            f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="2"/>',
            "</svg>\n",
        ]
    )
