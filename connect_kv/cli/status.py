"""status: the members of the cluster at a glance."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client import failures, trouble
from connect_kv.client.client import Client
from connect_kv.client.endpoints import bare_address
from connect_kv.client.messages import Member, StatusResponse


@dataclass(frozen=True, slots=True)
class Row:
    """One member: what the cluster knows of it, and what it says itself."""

    endpoint: str
    status: StatusResponse | None
    problem: str = ""
    """Why it could not be asked from here."""
    name: str = ""
    id: int = 0
    said: str = ""
    """If it could not be asked: what another member says of it, and which."""
    vouched: bool = False
    """Whether what is said of it is that it is well."""

    @property
    def healthy(self) -> bool:
        """Whether it knows a leader and of no trouble; or, not reached from here, answers another member."""
        if self.status is None:
            return self.vouched
        return bool(self.status.leader) and not self.status.errors


_NOT_STARTED = Row("", None, "it has not said where clients reach it: is it started?")


@click.command(cls=ClusterCommand)
@pass_settings
def status(settings: Settings) -> None:
    """Show every member: who leads, how far each has come, how much it stores.

    Asks the given endpoints, and every other member they know of at the address it advertises. One that
    cannot be reached from here is judged by what the others say of it. Exits 1 unless all are healthy.
    """
    rows = settings.run(lambda client: collect(settings, client))
    form = settings.output if settings.chosen else "table"
    newest = max((row.status.raftIndex for row in rows if row.status), default=0)
    if form == "json":
        output.as_json(as_json(rows))
    elif form == "table":
        _table(rows, newest)
    else:
        for row in rows:
            click.echo(_line(row, newest))
    if not all(row.healthy for row in rows):
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
    return _with_hearsay([*named, *rows.values()])


def _with_hearsay(rows: Sequence[Row]) -> list[Row]:
    """Members that cannot be asked from here, with what others say of them: the leader, if it can be asked.

    A leader hears of every other member all the time, a follower only of its leader.
    """
    found = []
    asked = sorted((row for row in rows if row.status), key=lambda row: not _leads(row))
    for row in rows:
        for witness in asked if row.status is None else []:
            assert witness.status is not None
            contact = {one.memberID: one for one in witness.status.contacts}.get(row.id)
            if contact is not None and (_leads(witness) or witness.status.leader == row.id):
                said = f"{witness.name or witness.endpoint} says: {contact.contact}"
                row = replace(row, said=said, vouched=contact.answers)
                break
        found.append(row)
    return found


def _leads(row: Row) -> bool:
    return row.status is not None and row.status.leader == row.status.header.member_id


async def _members(client: Client) -> list[Member]:
    try:
        return await client.members(linearizable=False)
    except errors.Refused as refused:
        if refused.code != failures.UNIMPLEMENTED:
            raise
        return []


def _address(member: Member) -> str:
    """Where clients reach it; empty if it has not told the cluster."""
    return bare_address(member.clientURLs[0]) if member.clientURLs else ""


async def _ask(client: Client, endpoint: str) -> Row:
    try:
        answer = await client.status(endpoint)
    except errors.ConnectKvError as error:
        return Row(endpoint, None, str(error).removeprefix(f"{endpoint}: "))
    return Row(endpoint, answer, id=answer.header.member_id)


def role(status: StatusResponse) -> str:
    """The role of a member: leader, follower, learner, or no leader known."""
    if status.isLearner:
        return "learner"
    if not status.leader:
        return "no leader"
    return "leader" if status.leader == status.header.member_id else "follower"


def _id(row: Row) -> str:
    return f"{row.id:x}" if row.id else ""


def _table(rows: list[Row], newest: int) -> None:
    """At most 80 columns wide with the usual names and addresses; what is wrong stands below it."""
    cells: list[list[output.Cell]] = []
    styles = []
    for row in rows:
        found = row.status
        if found is None:
            seen = "unreached" if row.vouched else "unreachable"
            cells.append([row.name, row.endpoint, seen, *[""] * 3, _id(row)])
            styles.append("yellow" if row.vouched else "red")
            continue
        lag, stored = str(newest - found.raftAppliedIndex), output.size(found.dbSize)
        cells.append(
            [row.name, row.endpoint, role(found), found.connectKvVersion or "-", lag, stored, _id(row)]
        )
        styles.append({"leader": "bold green", "no leader": "yellow"}.get(role(found), ""))
    columns = ["name", "endpoint", "role", "version", "lag", "stored", "id"]
    output.as_table(columns, cells, styles=styles, right=("lag", "stored"), plain=True)
    click.echo(_heading(rows, newest))
    for row in rows:
        for problem in _problems(row):
            click.echo(f"{row.name or row.endpoint}: {problem}")


def _heading(rows: Sequence[Row], newest: int) -> str:
    answers = [row.status for row in rows if row.status]
    if not answers:
        return "no member answers"
    versions = ", ".join(sorted({one.version for one in answers}))
    clusters = ", ".join(sorted({f"{one.header.cluster_id:x}" for one in answers}))
    term = max(one.raftTerm for one in answers)
    return f"cluster {clusters}, term {term}, index {newest}, API of etcd {versions}"


def _problems(row: Row) -> list[str]:
    if row.status is not None:
        told = trouble.told(row.status)
        return [told] if told else []
    return [text for text in (f"from here: {row.problem}", row.said) if text]


def _line(row: Row, newest: int) -> str:
    found = row.status
    if found is None:
        return f"{row.endpoint} {row.name} unreachable: {'; '.join(_problems(row))}"
    return (
        f"{row.endpoint} {row.name} {role(found)} term={found.raftTerm} index={found.raftIndex} "
        f"applied={found.raftAppliedIndex} lag={newest - found.raftAppliedIndex} db={found.dbSize} "
        f"version={found.connectKvVersion} etcd={found.version}"
    )


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """All of them for programs."""
    newest = max((row.status.raftIndex for row in rows if row.status), default=0)
    return [_as_json(row, newest) for row in rows]


def _as_json(row: Row, newest: int) -> dict[str, object]:
    found = row.status
    known = {"name": row.name, "endpoint": row.endpoint, "id": _id(row), "healthy": row.healthy}
    if found is None:
        return {**known, "reachable": False, "problem": row.problem, "said": row.said}
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
        "connect_kv_version": found.connectKvVersion,
        "problems": list(found.errors),
        "contacts": {f"{one.memberID:x}": one.contact for one in found.contacts},
    }
