"""Three members far from each other: a lone put, a lone read, elections, the pause after a death.

    python -m benchmarks.links --round-trip-ms 100 [-- OPTIONS OF SERVE]

Loopback, and proxies that hold every byte between members back for half of that; the client is beside the
leader.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import connect_kv
from connect_kv.testing.network import Links, Quality
from connect_kv.testing.processes import NodeProcess, ProcessCluster
from connect_kv.testing.proxy import ProxyNetwork

CHANGES = "etcd_server_leader_changes_seen_total"


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds, and changes of leader while nothing was done but puts and reads."""

    put: float
    get: float
    changes: float
    pause: float
    """From the end of the leader to the first put that another acknowledged."""


async def measure(directory: Path, round_trip: float, arguments: Sequence[str], rounds: int) -> Found:
    """Puts and reads, one after the other, so many of each; then the leader is killed."""
    network = ProxyNetwork(random.Random(1))
    cluster = ProcessCluster(directory, arguments=arguments)
    places = await network.start([node.name for node in cluster.nodes])
    peers = ",".join(f"{name}={place.peer_address}" for name, place in places.items())
    for node in cluster.nodes:
        node.client_port, node.peer_port, node.http_port = places[node.name].ports
        node.arguments[-1] = peers
        node.arguments += ["--advertise-peer", places[node.name].peer_address]
    Links(network, list(places)).all(Quality(delay=round_trip / 2))
    try:
        for node in cluster.nodes:
            await node.start()
            network.started(node.name, node.pid)
        for node in cluster.nodes:
            await node.ready()
        return await _loaded(cluster, rounds)
    finally:
        await asyncio.gather(*(node.kill() for node in cluster.nodes if node.running))
        await network.close()


async def _loaded(cluster: ProcessCluster, rounds: int) -> Found:
    leader = await cluster.leader()
    before = await _changes(cluster.nodes)
    async with connect_kv.connect(leader.client_address) as client:
        await client.put("key", "first")
        puts = [await _timed(lambda: client.put("key", "value")) for _ in range(rounds)]
        gets = [await _timed(lambda: client.get("key")) for _ in range(rounds)]
    changes = await _changes(cluster.nodes) - before
    others = ",".join(node.client_address for node in cluster.nodes if node is not leader)
    async with connect_kv.connect(others) as client:
        await client.put("key", "before")
        await leader.kill()
        pause = await _timed(lambda: client.put("key", "after", timeout=60))
    return Found(statistics.median(puts), statistics.median(gets), changes, pause)


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def _changes(nodes: Sequence[NodeProcess]) -> float:
    return sum([await node.metric(CHANGES) or 0.0 for node in nodes])


def main() -> None:
    """One row of the table in docs/how-to/far-links.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--round-trip-ms", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("arguments", nargs="*", metavar="OPTIONS OF SERVE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(
            measure(Path(directory), given.round_trip_ms / 1000, given.arguments, given.rounds)
        )
    cells = (
        f"{given.round_trip_ms:.0f} ms",
        " ".join(given.arguments) or "as they are",
        f"{1000 * found.put:.0f} ms",
        f"{1000 * found.get:.0f} ms",
        f"{found.changes:.0f}",
        f"{found.pause:.1f} s",
    )
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
