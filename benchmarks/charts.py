"""The charts of the page, from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks import plots
from benchmarks.figures import Section
from benchmarks.pairs import CALLERS, VALUE_SIZES, WATCHERS

Sections = Mapping[str, Section]
PUTS = (
    ("ours, session", "session put {}", "connect-kv"),
    ("ours, unary", "unary put {}", "connect-kv"),
    ("etcd, unary", "unary put {}", "etcd"),
)
PERCENTILES = (
    ("median", 2.0, "50 %"),
    ("p90", 10.0, "90 %"),
    ("p99", 100.0, "99 %"),
    ("p999", 1000.0, "99.9 %"),
)
BOTH = (("ours", "{}", "connect-kv"), ("etcd", "{}", "etcd"))


def draw(sections: Sections, target: Path) -> None:
    """Write those that there are figures for."""

    def chart(name: str, title: str, x: str, y: str, series: plots.Series, **options: object) -> None:
        if kept := {label: points for label, points in series.items() if len(points) > 1}:
            plots.write(target / f"{name}.svg", title, x, y, kept, **options)  # type: ignore[arg-type]

    rates = _series(sections, "puts", PUTS, CALLERS, "rate")
    chart("puts-rate", "Puts a second", "callers", "puts/s", rates)
    medians = _series(sections, "puts", PUTS, CALLERS, "median")
    chart("puts-median", "Median latency of a put", "callers", "ms", medians, log=True)
    names = {at: name for _, at, name in PERCENTILES}
    chart(
        "percentiles",
        "Latency of a put by 100 callers",
        "percentile",
        "ms",
        _percentiles(sections),
        names=names,
    )
    by_size = tuple((label, row.replace("put {}", "put of {}"), system) for label, row, system in PUTS)
    sizes = _series(sections, "sizes", by_size, VALUE_SIZES, "rate")
    sizes = {label: [(size, rate * size / 2**20) for size, rate in line] for label, line in sizes.items()}
    names = {float(size): f"{size >> 10} KiB" if size < 1 << 20 else "1 MiB" for size in VALUE_SIZES}
    chart("value-size", "Puts by size of the value, 100 callers", "value", "MiB/s", sizes, names=names)
    watchers = tuple((label, "watchers {}", system) for label, _, system in BOTH)
    events = _series(sections, "watch", watchers, WATCHERS, "rate")
    chart("watchers", "Events that watchers of one key get", "watchers", "events/s", events)
    steps = [10**power for power in range(4, 9)]
    rows = tuple((label, "put, {:,} keys", system) for label, _, system in BOTH)
    cost = _series(sections, "growth", rows, steps, "cpu")
    chart("keys-cost", "Processor time of 1,000 puts, one node", "keys", "seconds", cost)
    rows = tuple((label, "node and its start, {:,} keys", system) for label, _, system in BOTH)
    memory = _series(sections, "growth", rows, steps, "anonymous")
    chart("keys-memory", "Anonymous memory of a node", "keys", "MiB", memory, log=True)
    start = _series(sections, "growth", rows, steps, "seconds")
    chart("keys-start", "Start to the first answer", "keys", "seconds", start)


def _series(
    sections: Sections,
    name: str,
    lines: Iterable[tuple[str, str, str]],
    xs: Iterable[int],
    field: str,
) -> dict[str, list[tuple[float, float]]]:
    """Points by label, of each (label, row, system)."""
    rows = sections[name].rows if name in sections else {}
    xs = tuple(xs)
    return {
        label: [
            (float(x), figures[field])
            for x in xs
            if (figures := rows.get(row.format(x), {}).get(system)) is not None
        ]
        for label, row, system in lines
    }


def _percentiles(sections: Sections) -> dict[str, list[tuple[float, float]]]:
    rows = sections["puts"].rows if "puts" in sections else {}
    return {
        label: [(at, figures[field]) for field, at, _ in PERCENTILES if field in figures]
        for label, row, system in PUTS
        if (figures := rows.get(row.format(100), {}).get(system)) is not None
    }
