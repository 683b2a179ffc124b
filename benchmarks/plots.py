"""Line charts as SVG: no library, one file that shows everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points of each line, by its name."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 70, 150, 40, 50
COLOURS = ("#0b6e99", "#c2571a", "#4f7a28", "#7a3b8f")


def write(path: Path, title: str, x: str, y: str, series: Series) -> None:
    """Write a chart with a logarithmic x axis and a linear y axis from zero."""
    points = [point for line in series.values() for point in line]
    low, high = math.log10(min(p[0] for p in points)), math.log10(max(p[0] for p in points))
    top = _round_up(max(p[1] for p in points))
    span = (high - low) or 1.0

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across = LEFT + (math.log10(point[0]) - low) / span * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - point[1] / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{title}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{x}</text>',
        f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {HEIGHT / 2})">{y}</text>',
    ]
    for step in range(5):
        value = top * step / 4
        height = at((points[0][0], value))[1]
        parts.append(
            f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{value:,.6g}</text>'
        )
    for value in sorted({point[0] for point in points}):
        across = at((value, 0))[0]
        parts.append(
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:,g}</text>'
        )
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(point) for point in line]
        path_data = "M" + "L".join(f"{across:.1f} {up:.1f}" for across, up in places)
        parts.append(f'<path d="{path_data}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{u:.1f}" r="3" fill="{colour}"/>' for a, u in places]
        parts.append(
            f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 16 + 20 * number}" fill="{colour}">{name}</text>'
        )
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    step = 10 ** math.floor(math.log10(value))
    return math.ceil(value / step * 2) / 2 * step
