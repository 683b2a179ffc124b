"""endpoint health: whether members answer, and how fast."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

import click

from connect_kv import errors
from connect_kv.cli import output
from connect_kv.cli.settings import ClusterCommand, Settings, pass_settings
from connect_kv.client.client import Client
from connect_kv.client.endpoints import bare_address

PROBE = "health"
"""The key that is read, as by etcdctl; it need not exist."""


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """How the member at an endpoint answered a read through the leader."""

    endpoint: str
    seconds: float
    problem: str = ""


@click.group()
def endpoint() -> None:
    """Single members, by the addresses where clients reach them."""


@endpoint.command(cls=ClusterCommand)
@click.option("--cluster", is_flag=True, help="Also all other members that these know of.")
@pass_settings
def health(settings: Settings, cluster: bool) -> None:
    """Have each of the given endpoints read a key through the leader; exits 1 unless all can."""

    async def work(client: Client) -> list[EndpointHealth]:
        addresses = list(client.endpoints)
        if cluster:
            urls = (url for member in await client.members(linearizable=False) for url in member.clientURLs)
            addresses += [bare_address(url) for url in urls]
        return list(await asyncio.gather(*(_probe(settings, one) for one in dict.fromkeys(addresses))))

    found = settings.run(work)
    told = [
        {"endpoint": one.endpoint, "healthy": not one.problem, "seconds": round(one.seconds, 6),
         "problem": one.problem}
        for one in found
    ]  # fmt: skip
    lines = [
        f"{one.endpoint} is unhealthy: {one.problem}"
        if one.problem
        else f"{one.endpoint} is healthy: read through the leader in {_took(one)}"
        for one in found
    ]
    rows = [[one.endpoint, str(not one.problem).lower(), _took(one), one.problem] for one in found]
    output.show(settings.output, told, lines, ["endpoint", "healthy", "took", "problem"], rows)
    if any(one.problem for one in found):
        sys.exit(1)


async def _probe(settings: Settings, address: str) -> EndpointHealth:
    started = time.monotonic()
    problem = ""
    async with settings.client(address) as client:
        try:
            await client.get(PROBE)
        except errors.ConnectKvError as error:
            problem = str(error)
    return EndpointHealth(address, time.monotonic() - started, problem)


def _took(health: EndpointHealth) -> str:
    return f"{health.seconds * 1000:.1f} ms"
