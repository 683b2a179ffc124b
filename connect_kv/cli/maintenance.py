"""alarm, defrag, hash, move-leader."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.progress import waiting
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.status import collect, role
from connect_kv.cli.values import HexId
from connect_kv.client.client import Client
from connect_kv.client.messages import AlarmMember, AlarmType, HashKVResponse

DEFRAGMENT_SECONDS = 600.0
"""Of the patience with one member that rewrites all it stores, unless --timeout is longer."""


@click.group()
def alarm() -> None:
    """Alarms: NOSPACE and CORRUPT, raised by members, ended by you."""


@alarm.command("list", cls=ClusterCommand)
@pass_settings
def list_alarms(settings: Settings) -> None:
    """Print the alarms that are on."""
    _print_alarms(settings, settings.run(lambda client: client.maintenance.alarms()))


@alarm.command(cls=ClusterCommand)
@click.argument("id", type=HexId("member"), required=False)
@pass_settings
def disarm(settings: Settings, id: int | None) -> None:
    """End all alarms, or those of member ID, and print which these were.

    First remove the reason (docs/operations.md), or the alarm comes back.
    """

    async def work(client: Client) -> list[AlarmMember]:
        raised = [one for one in await client.maintenance.alarms() if id in (None, one.memberID)]
        for one in raised:
            await client.maintenance.disarm(one.memberID, one.alarm)
        return raised

    _print_alarms(settings, settings.run(work))


@click.command(cls=ClusterCommand)
@pass_settings
def defrag(settings: Settings) -> None:
    """Have the members at the given endpoints, one after the other, give back unneeded disk space.

    They go on serving. What was deleted and compacted is given back without this as well, more slowly.
    """

    async def work(client: Client) -> list[dict[str, object]]:
        done: list[dict[str, object]] = []
        for endpoint in client.endpoints:
            before = (await client.status(endpoint)).dbSize
            with waiting(f"defragmenting {endpoint}", quiet=settings.quiet):
                patience = max(settings.timeout, DEFRAGMENT_SECONDS)
                await client.maintenance.defragment(endpoint, timeout=patience)
            after = (await client.status(endpoint)).dbSize
            done.append({"endpoint": endpoint, "before": before, "after": after})
            if settings.output != "json":
                click.echo(f"{endpoint}: {output.size(before)} before, {output.size(after)} after")
        return done

    done = settings.run(work)
    if settings.output == "json":
        output.as_json(done)


@click.command("hash", cls=ClusterCommand)
@click.option("--rev", type=click.IntRange(min=0), default=0, help="Up to that revision.  [default: all]")
@pass_settings
def hash_members(settings: Settings, rev: int) -> None:
    """Print the hash of the keys and their history on the members at the given endpoints.

    At one revision, and compacted alike, they are equal; exits 1 if they are not.
    """

    async def work(client: Client) -> list[tuple[str, HashKVResponse]]:
        revision = rev or min(
            one.header.revision
            for one in await asyncio.gather(*(client.status(endpoint) for endpoint in client.endpoints))
        )
        found = await asyncio.gather(
            *(client.maintenance.hash_kv(endpoint, revision=revision) for endpoint in client.endpoints)
        )
        return list(zip(client.endpoints, found, strict=True))

    with waiting("hashing", quiet=settings.quiet):
        found = settings.run(work)
    _print_hashes(settings, found)
    if len({one.compact_revision for _, one in found}) == 1 < len({one.hash for _, one in found}):
        sys.exit(1)


@click.command("move-leader", cls=ClusterCommand)
@click.argument("id", type=HexId("member"))
@pass_settings
def move_leader(settings: Settings, id: int) -> None:
    """Have the leader hand over to member ID, which must be a voter."""

    async def work(client: Client) -> str:
        rows = await collect(settings, client)
        leaders = [row.endpoint for row in rows if row.status and role(row.status) == "leader"]
        if not leaders:
            raise errors.Unavailable("no member that answers leads the cluster: see `connect-kv status`")
        async with settings.client(leaders[0]) as leader:
            await leader.maintenance.move_leader(leaders[0], id)
        return leaders[0]

    with waiting(f"handing over to {id:x}", quiet=settings.quiet):
        before = settings.run(work)
    output.show(settings.output, {"leader": f"{id:x}", "before": before}, [f"member {id:x} leads"])


def _print_alarms(settings: Settings, alarms: Sequence[AlarmMember]) -> None:
    rows = [(f"{one.memberID:x}", AlarmType.Name(one.alarm)) for one in alarms]
    told = [{"member": member, "alarm": name} for member, name in rows]
    output.show(settings.output, told, map(" ".join, rows), ["member", "alarm"], rows)


def _print_hashes(settings: Settings, found: Sequence[tuple[str, HashKVResponse]]) -> None:
    told = [
        {"endpoint": endpoint, "hash": one.hash, "revision": one.hash_revision,
         "compact_revision": one.compact_revision}
        for endpoint, one in found
    ]  # fmt: skip
    lines = [f"{endpoint} {one.hash:08x} revision={one.hash_revision}" for endpoint, one in found]
    rows = [(endpoint, f"{one.hash:08x}", one.hash_revision, one.compact_revision) for endpoint, one in found]
    output.show(settings.output, told, lines, ["endpoint", "hash", "revision", "compacted"], rows)
