"""The part of docs/performance.md that is measured: everything between two markers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import COLUMNS, Figures, Section

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
Sections = Mapping[str, Section]
OURS = "connect-kv"


class Goal(NamedTuple):
    """One line of the table: ours against theirs, and what it should come to."""

    work: str
    section: str
    ours: str
    theirs: tuple[str, str]
    """Row and system. A row that ends in ``*``: the best of all that begin so."""
    field: str
    least: float
    more: bool = True
    """Whether more is better."""
    factor: float = 1.0
    """Units of ours in one operation, where it counts."""


ALONE = "log write, nothing else"

GOALS = (
    Goal("session puts, 1,000 callers, against etcd's best unary rate", "puts", "session put 1000",
         ("unary put *", "etcd"), "rate", 2.0),
    Goal("session puts over 100,000 keys, 1,000 callers, against etcd's unary ones over as many", "puts",
         "session put 1000, 100,000 keys", ("unary put 1000, 100,000 keys", "etcd"), "rate", 1.5),
    Goal("session puts, 100 callers, median latency", "puts", "session put 100",
         ("unary put 100", "etcd"), "median", 1.0, more=False),
    Goal("unary puts, 1,000 in flight", "puts", "unary put 1000", ("unary put 1000", "etcd"), "rate", 0.35),
    Goal("unary puts, one node, against an empty handler", "floor", "one node put 300",
         ("one node put 300", "empty handler"), "rate", 0.5),
    Goal("one caller, unary put, median latency", "puts", "unary put 1",
         ("unary put 1", "etcd"), "median", 1.7, more=False),
    Goal("unary puts, 10 in flight", "puts", "unary put 10", ("unary put 10", "etcd"), "rate", 0.8),
    Goal("unary puts, 100 in flight", "puts", "unary put 100", ("unary put 100", "etcd"), "rate", 1.1),
    Goal("one caller, linearizable range, median latency", "gets", "unary get 1",
         ("unary get 1", "etcd"), "median", 1.4, more=False),
    Goal("linearizable range, 1,000 in flight", "gets", "unary get 1000",
         ("unary get 1000", "etcd"), "rate", 0.5),
    Goal("session gets, 1,000 callers, against etcd unary", "gets", "session get 1000",
         ("unary get 1000", "etcd"), "rate", 2.0),
    Goal("counter, 1,000 callers", "counter", "counter 1000", ("counter 1000", "PySyncObj"), "rate", 5.0),
    Goal("counter, one caller, median latency", "counter", "counter 1",
         ("counter 1", "PySyncObj"), "median", 0.02, more=False),
    Goal("watch fan-out to 1,000 watchers, events/s", "watch", "watchers 1000",
         ("watchers 1000", "etcd"), "rate", 0.5),
    Goal("loading in transactions of 128 puts, keys/s", "load", "load 128",
         ("load 128", "etcd"), "rate", 0.5, factor=128.0),
    Goal("loading a million keys in transactions of 128 puts, keys/s", "many-keys", "loading 1,000,000 keys",
         ("loading 1,000,000 keys", "etcd"), "rate", 0.5),
    Goal("anonymous memory of a node that has taken a million keys", "many-keys", "memory after loading",
         ("memory after loading", "etcd"), "anonymous", 0.5, more=False),
    Goal("the same, resident", "many-keys", "memory after loading",
         ("memory after loading", "etcd"), "resident", 0.5, more=False),
    Goal("anonymous memory after a start with a million keys", "many-keys", "memory after a start",
         ("memory after a start", "etcd"), "anonymous", 0.5, more=False),
    Goal("memory of 2,000 connections without a call", "idle", "2,000 connections",
         ("2,000 connections", "etcd"), "anonymous", 1.0, more=False),
    Goal("memory of 10,000 watches of keys that nobody writes", "idle", "10,000 watches",
         ("10,000 watches", "etcd"), "anonymous", 1.0, more=False),
    Goal("start to the first answer with a million keys", "many-keys", "start to the first answer",
         ("start to the first answer", "etcd"), "seconds", 1.0, more=False),
    Goal("service back after `kill -9` of the leader", "many-keys", "kill -9 of the leader to the first put",
         ("kill -9 of the leader to the first put", "etcd"), "seconds", 1.0, more=False),
    Goal("service back after `kill -9` of all nodes", "many-keys", "kill -9 of all to the first put",
         ("kill -9 of all to the first put", "etcd"), "seconds", 1.0, more=False),
    *(
        Goal(f"p99.9 of a log write during {what}", "log-writes", f"log write, {what}",
             (ALONE, OURS), "p999", 5.0, more=False)
        for what in ("compaction of the state", "defragment", "sending a snapshot", "installing a snapshot")
    ),
)  # fmt: skip


def results(sections: Sections) -> str:
    """The tables."""
    lines = [
        "| work | this | the other | ratio | at least | reached | processor time ratio |",
        "|---|---|---|---|---|---|---|",
        *(_line(goal, sections) for goal in GOALS),
    ]
    for name, section in sections.items():
        lines += [
            "",
            f"### {name}",
            f"{section.about} `{section.command}`: {section.machine}.",
            "",
            *_table(section),
        ]
    return "\n".join(lines)


def _table(section: Section) -> list[str]:
    """Rows with the same figures stand together."""
    lines: list[str] = []
    before: list[str] = []
    for row, systems in section.rows.items():
        for system, figures in systems.items():
            names = [name for name in COLUMNS if any(name in one for one in systems.values())]
            if names != before:
                titles = ["what", "system", *(COLUMNS[name][0] for name in names)]
                lines += ["", "| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
                before = names
            values = [f"{figures[name]:{COLUMNS[name][1]}}" if name in figures else "" for name in names]
            lines.append("| " + " | ".join([row, system, *values]) + " |")
    return lines[1:]


def _line(goal: Goal, sections: Sections) -> str:
    bound = f"{goal.least:g}x" + ("" if goal.more else " or less")
    rows = sections[goal.section].rows if goal.section in sections else {}
    ours = rows.get(goal.ours, {}).get(OURS)
    theirs = _other(goal, rows)
    if ours is None or theirs is None or goal.field not in ours or goal.field not in theirs:
        return f"| {goal.work} | not measured | | | {bound} | | |"
    mine, other = ours[goal.field], theirs[goal.field]
    ratio = mine / other
    reached = ratio >= goal.least if goal.more else ratio <= goal.least
    unit, digits = _UNITS[goal.field]
    cpu = f"{ours['cpu'] / theirs['cpu']:.2f}x" if "cpu" in ours and "cpu" in theirs else ""
    return (
        f"| {goal.work} | {mine * goal.factor:{digits}}{unit} | {other * goal.factor:{digits}}{unit} "
        f"| {ratio:.2f}x | {bound} | {'yes' if reached else 'no'} | {cpu} |"
    )


_UNITS: Mapping[str, tuple[str, str]] = {
    "rate": ("/s", ",.0f"),
    "median": (" ms", ",.2f"),
    "p999": (" ms", ",.2f"),
    "seconds": (" s", ",.2f"),
    "anonymous": (" MiB", ",.0f"),
    "resident": (" MiB", ",.0f"),
}


def _other(goal: Goal, rows: Mapping[str, Mapping[str, Figures]]) -> Figures | None:
    row, system = goal.theirs
    if not row.endswith("*"):
        return rows.get(row, {}).get(system)
    found = [systems.get(system, {}) for name, systems in rows.items() if name.startswith(row[:-1])]
    return max((one for one in found if "rate" in one), key=lambda one: one["rate"], default=None)


def update(path: Path, text: str) -> None:
    """Put it between the markers of the page."""
    whole = path.read_text()
    head, _, rest = whole.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
