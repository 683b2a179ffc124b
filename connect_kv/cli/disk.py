"""inspect, verify: a stopped node's data directory."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from connect_kv.cli import output
from connect_kv.cli.progress import waiting
from connect_kv.cli.settings import LocalCommand, Settings, pass_settings
from connect_kv.raft.types import Entry, Membership
from connect_kv.storage.inspect import Summary, read_entries
from connect_kv.storage.inspect import inspect as summary_of
from connect_kv.storage.inspect import verify as reports_of

_DIRECTORY = click.argument("data_dir", type=click.Path(path_type=Path))


@click.command(cls=LocalCommand)
@_DIRECTORY
@click.option("--entries", is_flag=True, help="Also list the entries of the log.")
@click.option("--from", "start", type=int, help="List entries from this index on.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@pass_settings
def inspect(settings: Settings, data_dir: Path, entries: bool, start: int | None, limit: int) -> None:
    """Show what a stopped node has on disk: identity, hard state, log, state. Changes nothing."""
    form = _form(settings)
    with waiting(f"reading {data_dir}", quiet=settings.quiet):
        found = summary_of(data_dir)
    listed: list[Entry] = []
    if entries or start is not None:
        first = max(start or 0, found.first_index)
        listed = list(read_entries(data_dir, first, first + limit))
    if form == "json":
        output.as_json({**_as_json(found), "entries": [_entry_json(entry) for entry in listed]})
        return
    facts = _facts(found)
    if form == "simple":
        width = max(len(name) for name, _ in facts)
        for name, value in facts:
            top, *more = value.split("\n")
            click.echo(f"{name:<{width}}  {top}")
            for line in more:
                click.echo(f"{'':<{width}}  {line}")
        for entry in listed:
            click.echo(f"{entry.id.term}/{entry.index} {entry.kind.name} {len(entry.data)} bytes")
        return
    output.as_table(["what", "value"], [list(fact) for fact in facts])
    if listed:
        output.as_table(
            ["index", "term", "kind", "bytes"],
            [[entry.index, entry.id.term, entry.kind.name.lower(), len(entry.data)] for entry in listed],
        )


@click.command(cls=LocalCommand)
@_DIRECTORY
@pass_settings
def verify(settings: Settings, data_dir: Path) -> None:
    """Read everything a stopped node has on disk, with all checksums. Changes nothing.

    Exits 1 if anything is damaged.
    """
    with waiting(f"reading {data_dir}", quiet=settings.quiet) as say:
        reports = reports_of(data_dir, lambda path, records: say(f"reading {path}: {records} records"))
    output.show(
        _form(settings),
        [
            {"database": one.database, "records": one.records, "problems": list(one.problems)}
            for one in reports
        ],
        [f"{one.database}: {one.records} records: {'; '.join(one.problems) or 'ok'}" for one in reports],
        ["database", "records", "result"],
        [[one.database, one.records, "\n".join(one.problems) or "ok"] for one in reports],
        ["red" if one.problems else "green" for one in reports],
    )
    if any(one.problems for one in reports):
        sys.exit(1)


def _form(settings: Settings) -> str:
    return settings.output if settings.chosen else "table"


def _compacted(found: Summary) -> str:
    last = found.compacted
    return f"term {last.term}, index {last.index}" if last.index else "nothing is compacted yet"


def _facts(found: Summary) -> list[tuple[str, str]]:
    who = found.identity
    hard = found.hard_state
    last_terms = ", ".join(f"{term} from {index}" for index, term in found.term_starts[-5:])
    facts = [
        ("directory", str(found.path)),
        ("member", f"{who.name} {who.node_id:x}" if who else "never started"),
        ("cluster", f"{who.cluster_id:x}" if who else ""),
        ("known to the others", "yes" if found.confirmed else "not yet"),
        ("term", str(hard.term)),
        ("vote", f"{hard.vote:x}" if hard.vote else "none"),
        ("log", f"{found.first_index} .. {found.last.index}, {output.size(found.log_bytes)}"),
        ("last entry", f"term {found.last.term}, index {found.last.index}"),
        ("compacted up to", _compacted(found)),
        ("terms", last_terms),
        ("state on disk up to", str(found.durable_index)),
    ]
    for index, membership in found.memberships[-3:]:
        facts.append((f"members from {index}", _members(membership)))
    for state in found.states:
        use = "in use" if state.current else "left over"
        facts.append(
            (
                f"state {state.name}",
                f"{use}, applied {state.last_applied}, {output.size(state.disk_bytes)}"
                if not state.problem
                else f"{use}, {state.problem}",
            )
        )
    return facts


def _members(membership: Membership) -> str:
    lines = []
    for member in membership.members:
        roles = [
            word
            for word, ids in (
                ("voter", membership.voters),
                ("leaving voter", membership.voters_outgoing - membership.voters),
                ("learner", membership.learners),
            )
            if member.node_id in ids
        ]
        lines.append(f"{member.name or '(new)'} {member.node_id:x} {member.peer_address} {', '.join(roles)}")
    return "\n".join(lines)


def _as_json(found: Summary) -> dict[str, object]:
    who = found.identity
    hard = found.hard_state
    return {
        "path": str(found.path),
        "identity": {
            "name": who.name,
            "node_id": f"{who.node_id:x}",
            "cluster_id": f"{who.cluster_id:x}",
            "directory_id": who.directory_id.hex(),
        }
        if who
        else None,
        "confirmed": found.confirmed,
        "hard_state": {
            "term": hard.term,
            "vote": f"{hard.vote:x}" if hard.vote else None,
            "commit_index": hard.commit_index,
        },
        "first_index": found.first_index,
        "last": {"term": found.last.term, "index": found.last.index},
        "compacted": {"term": found.compacted.term, "index": found.compacted.index},
        "term_starts": [{"index": index, "term": term} for index, term in found.term_starts],
        "memberships": [
            {"index": index, **json.loads(membership.encode())} for index, membership in found.memberships
        ],
        "durable_index": found.durable_index,
        "log_bytes": found.log_bytes,
        "states": [
            {
                "name": state.name,
                "current": state.current,
                "last_applied": state.last_applied,
                "disk_bytes": state.disk_bytes,
                "problem": state.problem,
            }
            for state in found.states
        ],
    }


def _entry_json(entry: Entry) -> dict[str, object]:
    return {
        "index": entry.index,
        "term": entry.term,
        "kind": entry.kind.name.lower(),
        "bytes": len(entry.data),
    }
