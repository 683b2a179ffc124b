"""The charts of the report: one SVG whose rows share one axis of time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from chaos.faults import FAULTS
from chaos.nodes import NAMES
from chaos.observer import EVERY, Look, ObservedRole
from chaos.recording import Sample
from chaos.run import Interval, Result

WIDTH, LEFT, RIGHT = 1200, 92, 18
LANE, BAR = 26, 18
CURVE = 132
GROUPS = ("process", "network", "disk")
PERCENTILES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))
CHARACTER = 6.1


@dataclass(frozen=True)
class TimeAxis:
    """Seconds to horizontal position."""

    end: float

    def x(self, time: float) -> float:
        """The horizontal position of that moment."""
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(time, 0), self.end) / self.end

    def ticks(self) -> list[float]:
        """Round moments, about a dozen."""
        step = next(
            one for one in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 1e9) if self.end / one <= 14
        )
        return [step * number for number in range(int(self.end / step) + 1)]


class Drawing:
    """Parts of the SVG, from top to bottom."""

    def __init__(self, result: Result) -> None:
        self.result = result
        times = [look.time for look in result.looks] + [sample.ended for sample in result.samples] + [1.0]
        self.axis = TimeAxis(max(times))
        self.parts: list[str] = []
        self.y = 4.0
        self.top = 0.0

    def svg(self) -> str:
        """The whole chart as SVG."""
        self.faults()
        self.leadership()
        self.throughput()
        self.latency()
        height = self.y + 22
        return (
            f'<svg class="charts" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
            f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label="Timelines of the run">'
            + HATCH + "".join(self._bands(height)) + "".join(self._time_axis(height))
            + "".join(self.parts) + "</svg>"
        )  # fmt: skip

    def _title(self, text: str, legend: str = "") -> None:
        self.y += 22
        self.parts.append(f'<text class="title" x="0" y="{self.y:.0f}">{escape(text)}</text>{legend}')
        self.y += 10

    def _bands(self, height: float) -> Iterator[str]:
        """Faults, shown faintly through all charts."""
        for one in self.result.faults:
            x, width = self.axis.x(one.began), self.axis.x(one.ended) - self.axis.x(one.began)
            yield (
                f'<rect class="band {FAULTS[one.kind].group}" x="{x:.1f}" y="30" '
                f'width="{max(width, 1):.1f}" height="{height - 52:.0f}"/>'
            )

    def _time_axis(self, height: float) -> Iterator[str]:
        for tick in self.axis.ticks():
            x = self.axis.x(tick)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="30" y2="{height - 20:.0f}"/>'
            at = f'x="{x:.1f}" y="{height - 5:.0f}"'
            yield f'<text class="tick" text-anchor="middle" {at}>{tick:g} s</text>'

    # Faults.

    def faults(self) -> None:
        """A lane for each group: solid while it lasts, hatched until all nodes serve again. Numbers are those
        of the table.
        """
        legend = self._legend([("solid", "lasts"), ("after", "until every node serves again")], LEFT)
        self._title("Faults", legend)
        for group in GROUPS:
            self.parts.append(f'<text class="lane" x="0" y="{self.y + 13:.0f}">{group}</text>')
            self.parts += [
                self._fault(number, one)
                for number, one in enumerate(self.result.faults, 1)
                if FAULTS[one.kind].group == group
            ]
            self.y += LANE

    def _fault(self, number: int, one: Interval) -> str:
        group = FAULTS[one.kind].group
        x, ended, well = (self.axis.x(time) for time in (one.began, one.ended, one.recovered or one.ended))
        label, inside = label_of(number, one.kind, ended - x, well - x)
        title = escape(f"{number} {one.kind}: {one.note} ({one.began:.1f} to {one.ended:.1f} s)")
        return (
            f"<g><title>{title}</title>"
            f'<rect class="after {group}" x="{ended:.1f}" y="{self.y:.0f}" width="{max(well - ended, 0):.1f}"'
            f' height="{BAR}" rx="3"/>'
            f'<rect class="fault {group}" x="{x:.1f}" y="{self.y:.0f}" width="{max(ended - x, 3):.1f}"'
            f' height="{BAR}" rx="3"/>'
            f'<text class="{inside}" x="{x + 6:.1f}" y="{self.y + 13:.0f}">{escape(label)}</text></g>'
        )

    # Leadership.

    def leadership(self) -> None:
        """A lane for each node, coloured by what it says, or does not say, of itself."""
        shown = [(_css(role), role.value) for role in ObservedRole]
        self._title("Leadership", self._legend(shown, LEFT + 28))
        for name in NAMES:
            self.parts.append(f'<text class="lane" x="0" y="{self.y + 13:.0f}">{name}</text>')
            looks = [look for look in self.result.looks if look.node == name]
            for role, term, start, end in _stretches(looks):
                self.parts.append(self._stretch(role, term, start, end))
            self.y += LANE

    def _stretch(self, role: ObservedRole, term: int, start: float, end: float) -> str:
        x, width = self.axis.x(start), max(self.axis.x(end) - self.axis.x(start), 1.2)
        text = f"term {term}" if role is ObservedRole.LEADER else ""
        if len(text) * CHARACTER > width - 8:
            text = str(term) if text and len(str(term)) * CHARACTER < width - 4 else ""
        words = f"{role.value}, term {term}" if term else role.value
        return (
            f"<g><title>{words}: {start:.1f} to {end:.1f} s</title>"
            f'<rect class="role {_css(role)}" x="{x:.1f}" y="{self.y:.0f}" width="{width:.1f}"'
            f' height="{BAR}"/>'
            f'<text class="term" x="{x + 4:.1f}" y="{self.y + 13:.0f}">{text}</text></g>'
        )

    # Curves.

    def throughput(self) -> None:
        """Calls answered and failed in each bin, per second."""
        width = max(0.5, self.axis.end / 400)
        self._title(
            "Calls per second", self._legend([("answered", "answered"), ("failed", "failed")], LEFT + 60)
        )
        answered = _rates([one.ended for one in self.result.samples if one.ok], self.axis.end, width)
        failed = _rates([one.ended for one in self.result.samples if not one.ok], self.axis.end, width)
        most = _round_up(max((a + b for a, b in zip(answered, failed, strict=True)), default=1))
        self._levels([(most * part, f"{most * part:g}") for part in (0, 0.5, 1)], lambda value: value / most)
        both = [a + b for a, b in zip(answered, failed, strict=True)]
        self.parts.append(self._area("failed", both, width, most))
        self.parts.append(self._area("answered", answered, width, most))
        self.y += CURVE

    def latency(self) -> None:
        """Percentiles of answered calls in each bin, on a logarithmic scale."""
        width = max(1.0, self.axis.end / 200)
        shown = [(name, name) for name, _ in PERCENTILES]
        self._title("Latency of answered calls", self._legend(shown, LEFT + 130))
        low, high = math.log10(0.001), math.log10(10)

        def height(seconds: float) -> float:
            return (math.log10(min(max(seconds, 0.001), 10)) - low) / (high - low)

        levels = [(0.001, "1 ms"), (0.01, "10 ms"), (0.1, "100 ms"), (1, "1 s"), (10, "10 s")]
        self._levels(levels, height)
        bins: list[list[float]] = [[] for _ in range(int(self.axis.end / width) + 1)]
        for one in self.result.samples:
            if one.ok:
                bins[int(one.ended / width)].append(one.ended - one.began)
        for name, share in PERCENTILES:
            self.parts.append(self._line(name, [percentile(one, share) for one in bins], width, height))
        self.y += CURVE

    def _levels(self, levels: Sequence[tuple[float, str]], height: Callable[[float], float]) -> None:
        for value, text in levels:
            y = self.y + CURVE - 8 - (CURVE - 16) * height(value)
            self.parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            self.parts.append(
                f'<text class="tick" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{text}</text>'
            )

    def _area(self, name: str, rates: Sequence[float], width: float, most: float) -> str:
        base = self.y + CURVE - 8
        points = [
            f"{self.axis.x((number + 0.5) * width):.1f},{base - (CURVE - 16) * rate / most:.1f}"
            for number, rate in enumerate(rates)
        ]
        return (
            f'<polygon class="{name}" points="{LEFT},{base:.1f} {" ".join(points)} '
            f'{self.axis.x(len(rates) * width):.1f},{base:.1f}"/>'
        )

    def _line(
        self, name: str, values: Sequence[float | None], width: float, height: Callable[[float], float]
    ) -> str:
        """Interrupted where nothing was answered."""
        path, pen_down = [], False
        for number, value in enumerate(values):
            if value is None:
                pen_down = False
                continue
            x, y = self.axis.x((number + 0.5) * width), self.y + CURVE - 8 - (CURVE - 16) * height(value)
            path.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
            pen_down = True
        return f'<path class="curve {name}" d="{" ".join(path)}"/>'

    def _legend(self, items: Sequence[tuple[str, str]], x: float) -> str:
        parts = []
        for name, text in items:
            parts.append(
                f'<rect class="key {name}" x="{x:.0f}" y="{self.y + 13:.0f}" width="10" height="10" rx="2"/>'
                f'<text class="tick" x="{x + 15:.0f}" y="{self.y + 22:.0f}">{escape(text)}</text>'
            )
            x += 30 + len(text) * CHARACTER
        return "".join(parts)


HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternTransform="rotate(45)" '
    'patternUnits="userSpaceOnUse"><rect class="hatch" width="2" height="6"/></pattern></defs>'
)


def label_of(number: int, kind: str, lasts: float, until_well: float) -> tuple[str, str]:
    """What is written on a fault's box, and its class, by the widths of the box. The number always is."""
    label = f"{number} {kind}"
    if len(label) * CHARACTER >= until_well - 8:
        label = str(number)
    return label, "label" if len(label) * CHARACTER < lasts - 8 else "label outside"


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that `share` of them do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def longest_pause(samples: Sequence[Sample], start: float, end: float) -> float:
    """The longest time within ``[start, end]`` in which no call was answered."""
    answers = sorted(one.ended for one in samples if one.ok and start <= one.ended <= end)
    return max((after - before for before, after in pairwise([start, *answers, end])), default=0.0)


def _stretches(looks: Sequence[Look]) -> Iterator[tuple[ObservedRole, int, float, float]]:
    """Runs of the same answer."""
    start = 0
    for number, look in enumerate(looks):
        last = number == len(looks) - 1
        if last or (looks[number + 1].role, looks[number + 1].term) != (look.role, look.term):
            end = look.time + EVERY if last else looks[number + 1].time
            yield look.role, look.term, looks[start].time, end
            start = number + 1


def _rates(times: Sequence[float], end: float, width: float) -> list[float]:
    counts = [0] * (int(end / width) + 1)
    for time in times:
        counts[int(time / width)] += 1
    return [count / width for count in counts]


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power: float = 10 ** math.floor(math.log10(max(value, 1)))
    return next(factor * power for factor in (1, 2, 5, 10) if value <= factor * power)


def _css(role: ObservedRole) -> str:
    return f"is-{role.name.lower()}"
