"""lease grant, revoke, keep-alive, timetolive, list."""

from __future__ import annotations

import asyncio

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.quantities import WholeSeconds
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.cli.values import HexId
from connect_kv.client.client import Client


@click.group()
def lease() -> None:
    """Leases: keys that live as long as somebody renews them."""


@lease.command(cls=ClusterCommand)
@click.argument("ttl", type=WholeSeconds())
@pass_settings
def grant(settings: Settings, ttl: int) -> None:
    """Make a lease that lives for TTL, such as 30s, after each renewal; seconds without a unit."""
    id, granted = settings.run(lambda client: client.grant_lease(ttl))
    told, said = {"id": id, "hex": f"{id:x}", "ttl": granted}, f"lease {id:x} granted with TTL {granted} s"
    output.show(settings.output, told, [said], ["lease", "ttl"], [[f"{id:x}", granted]])


@lease.command(cls=ClusterCommand)
@click.argument("id", type=HexId("lease"))
@pass_settings
def revoke(settings: Settings, id: int) -> None:
    """End lease ID and delete its keys."""
    settings.run(lambda client: client.revoke_lease(id))
    told = {"id": id, "hex": f"{id:x}", "revoked": True}
    output.show(settings.output, told, [f"lease {id:x} revoked"])


@lease.command("keep-alive", cls=ClusterCommand)
@click.argument("id", type=HexId("lease"))
@click.option("--once", is_flag=True, help="Renew it once and end.")
@pass_settings
def keep_alive(settings: Settings, id: int, once: bool) -> None:
    """Renew lease ID until interrupted."""

    async def work(client: Client) -> None:
        while True:
            ttl = await client.renew_lease(id)
            if ttl <= 0:
                raise errors.Refused(5, f"lease {id:x} expired or was revoked")
            told = {"id": id, "hex": f"{id:x}", "ttl": ttl}
            output.show(settings.output, told, [f"lease {id:x} kept alive with TTL {ttl} s"])
            if once:
                return
            await asyncio.sleep(ttl / 3)

    settings.run(work)


@lease.command("timetolive", cls=ClusterCommand)
@click.argument("id", type=HexId("lease"))
@click.option("--keys", is_flag=True, help="Also print its keys.")
@pass_settings
def time_to_live(settings: Settings, id: int, keys: bool) -> None:
    """Print how long lease ID still lives."""
    answer = settings.run(lambda client: client.lease_time_to_live(id, keys=keys))
    attached = sorted(answer.keys)
    match settings.output:
        case "json":
            found: dict[str, object] = {
                "id": id,
                "hex": f"{id:x}",
                "ttl": answer.TTL,
                "granted_ttl": answer.grantedTTL,
            }
            if keys:
                found["keys"] = [output.named("key", key) for key in attached]
            output.as_json(found)
        case _ if answer.TTL < 0:
            raise errors.Refused(5, f"lease {id:x} expired or was revoked")
        case "table":
            output.as_table(
                ["lease", "remaining", "granted", *(["keys"] if keys else [])],
                [
                    [
                        f"{id:x}",
                        answer.TTL,
                        answer.grantedTTL,
                        *(["\n".join(map(output.text, attached))] if keys else []),
                    ]
                ],
            )
        case _:
            click.echo(f"lease {id:x} granted with TTL {answer.grantedTTL} s, remaining {answer.TTL} s")
            for key in attached:
                output.raw(key)


@lease.command("list", cls=ClusterCommand)
@pass_settings
def list_leases(settings: Settings) -> None:
    """Print the ids of all leases."""
    ids = settings.run(lambda client: client.leases())
    told = [{"id": id, "hex": f"{id:x}"} for id in ids]
    hexes = [f"{id:x}" for id in ids]
    output.show(settings.output, told, hexes, ["lease"], [[one] for one in hexes])
