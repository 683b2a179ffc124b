"""status: the members of the cluster at a glance."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.client import Client
from connect_kv.client.messages import Member, StatusResponse


@dataclass(frozen=True, slots=True)
class Row:
    """One member: what the cluster knows of it, and what it says itself."""

    name: str
    endpoint: str
    status: StatusResponse | None
    problem: str = ""


@click.command(cls=ClusterCommand)
@pass_settings
def status(settings: Settings) -> None:
    """Show every member: who leads, how far each has come, how much it stores.

    Asks the members that the given endpoints know of. Exits 1 if one does not answer.
    """
    rows = settings.run(lambda client: _collect(settings, client))
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


async def _collect(settings: Settings, client: Client) -> list[Row]:
    """Ask all members at once."""
    try:
        members = await client.members(linearizable=False)
    except errors.Refused as refused:
        if refused.code != 12:
            raise
        members = []
    names = _endpoints(members) or {endpoint: "" for endpoint in client.endpoints}
    async with settings.client(",".join(names)) as everybody:
        return await asyncio.gather(*(_ask(everybody, endpoint, name) for endpoint, name in names.items()))


def _endpoints(members: list[Member]) -> dict[str, str]:
    """Client address to name, by name; a member that has not published one has none."""
    found: dict[str, str] = {}
    for member in sorted(members, key=lambda member: member.name):
        for url in member.clientURLs[:1]:
            found[url.removeprefix("http://")] = member.name
    return found


async def _ask(client: Client, endpoint: str, name: str) -> Row:
    try:
        return Row(name, endpoint, await client.status(endpoint))
    except errors.ConnectKvError as error:
        return Row(name, endpoint, None, str(error))


def role(status: StatusResponse) -> str:
    """What it is to the others."""
    if status.isLearner:
        return "learner"
    if not status.leader:
        return "no leader"
    return "leader" if status.leader == status.header.member_id else "follower"


def _table(rows: list[Row], newest: int) -> None:
    cells: list[list[output.Cell]] = []
    styles = []
    for row in rows:
        found = row.status
        if found is None:
            cells.append([row.name, row.endpoint, "", "unreachable", "", "", "", "", "", row.problem])
            styles.append("red")
            continue
        cells.append(
            [
                row.name,
                row.endpoint,
                f"{found.header.member_id:x}",
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
    if found is None:
        return {"name": row.name, "endpoint": row.endpoint, "reachable": False, "problem": row.problem}
    return {
        "name": row.name,
        "endpoint": row.endpoint,
        "reachable": True,
        "id": f"{found.header.member_id:x}",
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
