"""member list, add, promote, update, remove."""

from __future__ import annotations

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.values import HexId
from connect_kv.client.client import Client
from connect_kv.client.endpoints import bare_address
from connect_kv.client.messages import Member


@click.group()
def member() -> None:
    """Members of the cluster: see them, add, replace and remove them."""


@member.command("list", cls=ClusterCommand)
@pass_settings
def list_members(settings: Settings) -> None:
    """Print all members; `connect-kv status` says how they are."""
    _print(settings, settings.run(lambda client: client.cluster.members()))


@member.command(cls=ClusterCommand)
@click.argument("peer_address", metavar="HOST:PORT")
@click.option("--name", default="", help="Name of the new member, for the options that are printed.")
@click.option("--learner", is_flag=True, help="It gets the log and does not count until it is promoted.")
@pass_settings
def add(settings: Settings, peer_address: str, name: str, learner: bool) -> None:
    """Add a member that listens for others on HOST:PORT, and print how to start it.

    A cluster cannot write while it waits for a voter that never comes: add a learner, start it, and
    promote it when it has caught up.
    """

    async def work(client: Client) -> tuple[Member, list[Member]]:
        added = await client.cluster.add(peer_address, learner=learner)
        return added, await client.cluster.members()

    added, members = settings.run(work)
    if settings.output == "json":
        output.as_json({**_as_json(added), "initial_cluster": _initial_cluster(members, added, name)})
        return
    click.echo(f"{'learner' if learner else 'member'} {added.ID:x} added; start it with an empty directory:")
    click.echo(
        f"connect-kv serve --name {name or 'NAME'} --data-dir DIR --listen-peer {_peer(added)} "
        f"--initial-cluster {_initial_cluster(members, added, name)} --initial-cluster-state existing"
    )


@member.command(cls=ClusterCommand)
@click.argument("id", type=HexId("member"))
@pass_settings
def promote(settings: Settings, id: int) -> None:
    """Make learner ID, once it has caught up, a member that counts."""
    settings.run(lambda client: client.cluster.promote(id))
    _done(settings, id, "promoted")


@member.command(cls=ClusterCommand)
@click.argument("id", type=HexId("member"))
@click.argument("peer_address", metavar="HOST:PORT")
@pass_settings
def update(settings: Settings, id: int, peer_address: str) -> None:
    """Tell the others that member ID now listens on HOST:PORT; restart it there afterwards."""
    settings.run(lambda client: client.cluster.update(id, peer_address))
    _done(settings, id, "updated")


@member.command(cls=ClusterCommand)
@click.argument("id", type=HexId("member"))
@pass_settings
def remove(settings: Settings, id: int) -> None:
    """Remove member ID for good: it stops by itself, and its directory can be deleted."""
    settings.run(lambda client: client.cluster.remove(id))
    _done(settings, id, "removed")


def _done(settings: Settings, id: int, what: str) -> None:
    output.show(settings.output, {"id": f"{id:x}", what: True}, [f"member {id:x} {what}"])


def _print(settings: Settings, members: list[Member]) -> None:
    rows = [[f"{one.ID:x}", one.name, _role(one), _peer(one), _clients(one)] for one in members]
    output.show(
        settings.output if settings.chosen else "table",
        [_as_json(one) for one in members],
        (" ".join(cell or "-" for cell in row) for row in rows),
        ["id", "name", "role", "peers", "clients"],
        rows,
        ["" if one.name else "yellow" for one in members],
    )


def _role(member: Member) -> str:
    if not member.name:
        return "learner, not started" if member.isLearner else "not started"
    return "learner" if member.isLearner else "voter"


def _peer(member: Member) -> str:
    return ",".join(bare_address(url) for url in member.peerURLs)


def _clients(member: Member) -> str:
    return ",".join(bare_address(url) for url in member.clientURLs)


def _initial_cluster(members: list[Member], added: Member, name: str) -> str:
    """What the new member is started with: whom it may ask, and itself."""
    if all(one.ID != added.ID for one in members):
        raise errors.Unavailable("the new member is not listed yet: see `connect-kv member list`")
    known = [f"{one.name}={_peer(one)}" for one in members if one.name and one.ID != added.ID]
    return ",".join([*known, f"{name or 'NAME'}={_peer(added)}"])


def _as_json(member: Member) -> dict[str, object]:
    return {
        "id": f"{member.ID:x}",
        "name": member.name,
        "learner": member.isLearner,
        "peer_urls": list(member.peerURLs),
        "client_urls": list(member.clientURLs),
    }
