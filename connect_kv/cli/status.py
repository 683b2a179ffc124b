"""status: the members of the cluster at a glance."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client import failures
from connect_kv.client.client import Client
from connect_kv.client.messages import Member, StatusResponse


@dataclass(frozen=True, slots=True)
class Row:
    """One member: what the cluster knows of it, and what it says itself."""

    endpoint: str
    status: StatusResponse | None
    problem: str = ""
    name: str = ""
    id: int = 0


_NOT_STARTED = Row("", None, "it has not said where clients reach it: is it started?")


@click.command(cls=ClusterCommand)
@pass_settings
def status(settings: Settings) -> None:
    """Show every member: who leads, how far each has come, how much it stores.

    Asks the given endpoints, and every other member they know of at the address it advertises.
    Exits 1 if a member does not answer.
    """
    rows = settings.run(lambda client: collect(settings, client))
    form = settings.output if settings.chosen else "table"
    newest = max((row.status.raftIndex for row in rows if row.status), default=0)
    if form == "json":
        output.as_json([_as_json(row, newest) for row in rows])
    elif form == "table":
        _table(rows, newest)
    else:
        for row in rows:
            click.echo(_line(row, newest))
    if any(row.status is None for row in rows):
        sys.exit(1)


async def collect(settings: Settings, client: Client) -> list[Row]:
    """Ask the given endpoints, then the members they did not lead to at the addresses these advertise."""
    asked = await asyncio.gather(*(_ask(client, endpoint) for endpoint in client.endpoints))
    reached = {row.status.header.member_id: row for row in asked if row.status}
    if not reached:
        return list(asked)
    members = sorted(await _members(client), key=lambda member: member.name)
    others = {one.ID: _address(one) for one in members if one.ID not in reached}
    silent = {row.endpoint: row for row in asked if row.status is None}
    new = [address for address in others.values() if address and address not in silent]
    async with settings.client(",".join(new)) as everybody:
        answers = await asyncio.gather(*(_ask(everybody, address) for address in new))
    found = {"": _NOT_STARTED} | silent | dict(zip(new, answers, strict=True))
    rows = reached | {node_id: found[address] for node_id, address in others.items()}
    named = [replace(rows.pop(one.ID), name=one.name, id=one.ID) for one in members]
    return [*named, *rows.values()]


async def _members(client: Client) -> list[Member]:
    try:
        return await client.members(linearizable=False)
    except errors.Refused as refused:
        if refused.code != failures.UNIMPLEMENTED:
            raise
        return []


def _address(member: Member) -> str:
    """Where clients reach it; empty if it has not told the cluster."""
    return member.clientURLs[0].removeprefix("http://") if member.clientURLs else ""


async def _ask(client: Client, endpoint: str) -> Row:
    try:
        answer = await client.status(endpoint)
    except errors.ConnectKvError as error:
        return Row(endpoint, None, str(error).removeprefix(f"{endpoint}: "))
    return Row(endpoint, answer, id=answer.header.member_id)


def role(status: StatusResponse) -> str:
    """What it is to the others."""
    if status.isLearner:
        return "learner"
    if not status.leader:
        return "no leader"
    return "leader" if status.leader == status.header.member_id else "follower"


def _id(row: Row) -> str:
    return f"{row.id:x}" if row.id else ""


def _table(rows: list[Row], newest: int) -> None:
    cells: list[list[output.Cell]] = []
    styles = []
    for row in rows:
        found = row.status
        if found is None:
            cells.append([row.name, row.endpoint, _id(row), "unreachable", *[""] * 5, row.problem])
            styles.append("red")
            continue
        cells.append(
            [
                row.name,
                row.endpoint,
                _id(row),
                role(found),
                str(found.raftTerm),
                str(found.raftIndex),
                str(found.raftAppliedIndex),
                str(newest - found.raftAppliedIndex),
                output.size(found.dbSize),
                "\n".join(found.errors),
            ]
        )
        styles.append({"leader": "bold green", "no leader": "yellow"}.get(role(found), ""))
    columns = ["name", "endpoint", "id", "role", "term", "index", "applied", "lag", "db size", "problems"]
    if not any(row[-1] for row in cells):
        columns, cells = columns[:-1], [row[:-1] for row in cells]
    output.as_table(columns, cells, styles=styles, right=("term", "index", "applied", "lag", "db size"))


def _line(row: Row, newest: int) -> str:
    found = row.status
    if found is None:
        return f"{row.endpoint} {row.name} unreachable: {row.problem}"
    return (
        f"{row.endpoint} {row.name} {role(found)} term={found.raftTerm} index={found.raftIndex} "
        f"applied={found.raftAppliedIndex} lag={newest - found.raftAppliedIndex} db={found.dbSize}"
    )


def _as_json(row: Row, newest: int) -> dict[str, object]:
    found = row.status
    known = {"name": row.name, "endpoint": row.endpoint, "id": _id(row)}
    if found is None:
        return {**known, "reachable": False, "problem": row.problem}
    return {
        **known,
        "reachable": True,
        "cluster_id": f"{found.header.cluster_id:x}",
        "role": role(found),
        "leader": f"{found.leader:x}",
        "term": found.raftTerm,
        "index": found.raftIndex,
        "applied": found.raftAppliedIndex,
        "lag": newest - found.raftAppliedIndex,
        "revision": found.header.revision,
        "db_size": found.dbSize,
        "version": found.version,
        "problems": list(found.errors),
    }
