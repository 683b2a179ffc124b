"""An overview as text: 80 columns are enough, fewer cut what stands right."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from connect_kv.cli import output
from connect_kv.cli.overview import CLOCK_SECONDS, MemberView, Overview
from connect_kv.cli.status import role

_NAME_WIDTH = 12


def frame(overview: Overview) -> RenderableType:
    """All that is shown."""
    return Group(
        _head(overview),
        Text(),
        _members(overview.members),
        Text(),
        _work(overview.members),
        *_advice(overview),
    )


def _head(overview: Overview) -> Text:
    """Which cluster, how many answer, who leads."""
    answers = [one.row for one in overview.members if one.row.status]
    clock = time.strftime("%H:%M:%S", time.localtime(overview.at))
    if not answers:
        return Text(f"no member answers   {clock}", style="bold red", overflow="ellipsis", no_wrap=True)
    statuses = [row.status for row in answers if row.status]
    clusters = ", ".join(sorted({f"{one.header.cluster_id:x}" for one in statuses}))
    leaders = [row.name or row.endpoint for row in answers if row.status and role(row.status) == "leader"]
    led = f"led by {', '.join(leaders)}" if leaders else "no leader is known"
    term = max(one.raftTerm for one in statuses)
    count = f"{len(answers)} of {len(overview.members)} members answer"
    text = Text(overflow="ellipsis", no_wrap=True)
    text.append(f"cluster {clusters}  ", style="bold")
    text.append(count, style="" if len(answers) == len(overview.members) else "bold red")
    text.append(f"  {led}  term {term}  ", style="" if leaders else "bold red")
    text.append(clock, style="dim")
    return text


def _members(members: Sequence[MemberView]) -> Table:
    table = _table(
        ("member", "left"), ("role", "left"), ("term", "right"), ("index", "right"), ("lag", "right"),
        ("stored", "right"), ("version", "left"), ("clock", "right"),
    )  # fmt: skip
    newest = max((one.row.status.raftIndex for one in members if one.row.status), default=0)
    for one in members:
        row, found = one.row, one.row.status
        name = _name(one)
        if found is None:
            seen = "not seen" if row.vouched else "down"
            table.add_row(name, seen, *[""] * 6, style="yellow" if row.vouched else "red")
            continue
        behind = newest - found.raftAppliedIndex
        styles = {"leader": "bold green", "no leader": "yellow"}
        table.add_row(
            name, role(found), str(found.raftTerm), str(found.raftIndex), str(behind),
            output.size(found.dbSize), found.connectKvVersion or "-", _clock(one.clock),
            style=styles.get(role(found), ""),
        )  # fmt: skip
    return table


def _work(members: Sequence[MemberView]) -> Table:
    """Rates: what each member does in a second."""
    table = _table(
        ("a second", "left"), ("puts", "right"), ("ranges", "right"), ("watch events", "right"),
        ("calls", "right"), ("fsync", "right"), ("clients", "right"),
    )  # fmt: skip
    for one in members:
        if one.row.status is None:
            continue
        work = one.work
        table.add_row(
            _name(one), _number(work.puts), _number(work.ranges), _number(work.events), _number(work.calls),
            "-" if work.fsync is None else f"{work.fsync * 1000:.1f} ms", _number(work.connections),
        )  # fmt: skip
    return table


def _advice(overview: Overview) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for one in overview.advice:
        line = Text()
        line.append(f"{one.who}: ", style="bold")
        line.append(one.wrong, style="red")
        lines.append(line)
        if one.to_do:
            lines.append(Padding(Text(one.to_do), (0, 0, 0, 2)))
    return [Text(), *lines] if lines else []


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name, side in columns:
        justify = "right" if side == "right" else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    return table


def _name(one: MemberView) -> Text:
    text = Text(one.row.name or one.row.endpoint)
    text.truncate(_NAME_WIDTH if one.row.name else 21, overflow="ellipsis")
    return text


def _clock(ahead: float | None) -> Text:
    if ahead is None:
        return Text("-")
    text = f"{ahead:+.1f} s" if abs(ahead) >= CLOCK_SECONDS else f"{ahead * 1000:+.0f} ms"
    return Text(text, style="red" if abs(ahead) > CLOCK_SECONDS else "")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1_000_000:
        return f"{value / 1_000_000:.1f}M"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
