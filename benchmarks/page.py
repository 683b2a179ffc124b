"""The part of docs/performance.md that is measured: everything between two markers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.loads import Measured

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Found = Mapping[str, Mapping[str, Measured]]
OURS = "connect-kv"


class Goal(NamedTuple):
    """One line of the table: ours against theirs, and what it should come to."""

    work: str
    ours: str
    theirs: tuple[str, str]
    """Load and system. A load that ends in ``*``: the best of all that begin so."""
    field: str
    least: float
    more: bool
    """Whether more is better."""
    factor: float = 1.0
    """Units of ours in one operation, where it counts."""


GOALS = (
    Goal(
        "session puts, 1,000 callers, against etcd's best unary rate",
        "session put 1000",
        ("unary put *", "etcd"),
        "rate",
        2.0,
        True,
    ),
    Goal(
        "session puts, 100 callers, median latency",
        "session put 100",
        ("unary put 100", "etcd"),
        "median",
        1.0,
        False,
    ),
    Goal("unary puts, 1,000 in flight", "unary put 1000", ("unary put 1000", "etcd"), "rate", 0.35, True),
    Goal(
        "unary puts, one node, against an empty handler",
        "one node put 300",
        ("one node put 300", "empty handler"),
        "rate",
        0.5,
        True,
    ),
    Goal(
        "one caller, unary put, median latency", "unary put 1", ("unary put 1", "etcd"), "median", 1.6, False
    ),
    Goal(
        "linearizable range, 1,000 in flight", "unary get 1000", ("unary get 1000", "etcd"), "rate", 0.5, True
    ),
    Goal(
        "session gets, 1,000 callers, against etcd unary",
        "session get 1000",
        ("unary get 1000", "etcd"),
        "rate",
        2.0,
        True,
    ),
    Goal("counter, 1,000 callers", "counter 1000", ("counter 1000", "PySyncObj"), "rate", 5.0, True),
    Goal(
        "counter, one caller, median latency", "counter 1", ("counter 1", "PySyncObj"), "median", 0.02, False
    ),
    Goal(
        "watch fan-out to 1,000 watchers, events/s", "watch 1000", ("watch 1000", "etcd"), "rate", 0.5, True
    ),
    Goal(
        "loading in transactions of 128 puts, keys/s",
        "load 128",
        ("load 128", "etcd"),
        "rate",
        0.5,
        True,
        128.0,
    ),
)


def results(found: Found, machine: str) -> str:
    """The tables."""
    lines = [
        f"Measured on: {machine}.",
        "",
        "| work | this | the other | ratio | at least | reached | processor time ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [line for goal in GOALS if (line := _line(goal, found))]
    lines += [
        "",
        "All figures (medians; processor seconds are those of all servers together):",
        "",
        "| load | system | a second | median, ms | p99, ms | CPU s per 1,000 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        for system, one in row.items():
            lines.append(
                f"| {name} | {system} | {one.rate:,.0f} | {one.median:,.2f} | {one.p99:,.2f} "
                f"| {one.cpu:.3f} |"
            )
    return "\n".join(lines)


def _line(goal: Goal, found: Found) -> str | None:
    ours = found.get(goal.ours, {}).get(OURS)
    theirs = _other(goal, found)
    if ours is None or theirs is None:
        return f"| {goal.work} | not measured | | | {goal.least:g}x | | |"
    mine, other = getattr(ours, goal.field), getattr(theirs, goal.field)
    ratio = mine / other
    reached = ratio >= goal.least if goal.more else ratio <= goal.least
    unit = "/s" if goal.field == "rate" else " ms"
    digits = ",.0f" if goal.field == "rate" else ",.2f"
    bound = f"{goal.least:g}x" + ("" if goal.more else " or less")
    return (
        f"| {goal.work} | {mine * goal.factor:{digits}}{unit} | {other * goal.factor:{digits}}{unit} "
        f"| {ratio:.2f}x | {bound} | {'yes' if reached else 'no'} | {ours.cpu / theirs.cpu:.2f}x |"
    )


def _other(goal: Goal, found: Found) -> Measured | None:
    load, system = goal.theirs
    if not load.endswith("*"):
        return found.get(load, {}).get(system)
    rows = [row[system] for name, row in found.items() if name.startswith(load[:-1]) and system in row]
    rows = [row for row in rows if row is not None]
    return max(rows, key=lambda one: one.rate, default=None)


def update(path: Path, text: str) -> None:
    """Put it between the markers of the page."""
    page = path.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
