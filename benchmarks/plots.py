"""Line charts as SVG: no library, one file that shows everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Points of each line, by its name."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 650, 360, 80, 130, 40, 50
COLOURS = ("#0b6e99", "#c2571a", "#4f7a28", "#7a3b8f")


class PlotAxis:
    """Where a value stands between 0 and 1, and which values have a mark."""

    def __init__(self, values: Sequence[float], *, log: bool) -> None:
        """A linear one begins at zero, a logarithmic one at a power of ten."""
        self._log = log
        top = max(values)
        if log:
            low = math.floor(math.log10(min(values)) + 1e-9)
            high = max(low + 1, math.ceil(math.log10(top) - 1e-9))
            self.marks = [10.0**power for power in range(low, high + 1)]
        else:
            step = _step(top)
            self.marks = [step * number for number in range(math.ceil(top / step - 1e-9) + 1)]
        self._low, self._high = self._of(self.marks[0]), self._of(self.marks[-1])

    def at(self, value: float) -> float:
        """0 at its beginning, 1 at its end."""
        return (self._of(value) - self._low) / (self._high - self._low)

    def _of(self, value: float) -> float:
        return math.log10(value) if self._log else value


def write(
    path: Path,
    title: str,
    x: str,
    y: str,
    series: Series,
    *,
    log: bool = False,
    names: Mapping[float, str] | None = None,
) -> None:
    """Write a chart with a logarithmic x axis. `log`: the y axis too; `names`: of values of x."""
    points = [point for line in series.values() for point in line]
    across_axis = PlotAxis([point[0] for point in points], log=True)
    low, high = (across_axis.at(bound([point[0] for point in points])) for bound in (min, max))
    up_axis = PlotAxis([point[1] for point in points], log=log)

    def across(value: float) -> float:
        part = (across_axis.at(value) - low) / ((high - low) or 1.0)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - up_axis.at(value) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{title}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{x}</text>',
        f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {HEIGHT / 2})">{y}</text>',
    ]
    for mark in up_axis.marks:
        parts.append(
            f'<path d="M{LEFT} {up(mark):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{up(mark) + 4:.1f}" text-anchor="end">{mark:,.6g}</text>'
        )
    for value in sorted({point[0] for point in points}):
        name = (names or {}).get(value, f"{value:,.0f}")
        parts.append(
            f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{name}</text>'
        )
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(across(one[0]), up(one[1])) for one in line]
        path_data = "M" + "L".join(f"{a:.1f} {u:.1f}" for a, u in places)
        parts.append(f'<path d="{path_data}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{u:.1f}" r="3" fill="{colour}"/>' for a, u in places]
        parts.append(
            f'<text x="{WIDTH - RIGHT + 10}" y="{TOP + 16 + 20 * number}" fill="{colour}">{name}</text>'
        )
    path.write_text("\n".join([*parts, "</svg>", ""]))


def _step(top: float) -> float:
    """Between marks: a round number, four or five of which reach the top."""
    power = 10.0 ** math.floor(math.log10(top / 5))
    return next(power * round_ for round_ in (1, 2, 2.5, 5, 10) if power * round_ * 5 >= top)
