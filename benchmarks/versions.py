"""This and other checkouts of it beside etcd, in turns: one caller, and ten; the processor time of each call.

    python -m benchmarks.versions --rounds 5 this=. before=/path/to/checkout

Each checkout has a `.venv` of its own. On a machine that is busy with other things only the ratios mean
something, and of these the processor time most.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import uvloop

from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem
from connect_kv.http2.channel import Channel
from connect_kv.rpc.kv_pb2 import PutRequest, RangeRequest
from tests.etcd import find_etcd

PUT = PutRequest(key=b"bench/000000000001", value=b"\xa5" * 256).SerializeToString()
GET = RangeRequest(key=b"bench/000000000001").SerializeToString()
LOADS = {
    "put, one caller at the leader": (0, "Put", PUT, 1, 1),
    "put, one caller at a follower": (1, "Put", PUT, 1, 1),
    "range, one caller at the leader": (0, "Range", GET, 1, 2),
    "range, one caller at a follower": (1, "Range", GET, 1, 2),
    "put, ten callers at the leader": (0, "Put", PUT, 10, 4),
}
"""Which member, method and message, by how many, and for how many of the calls asked for."""
WARMING = 20
IN_CHECKOUT = 'cd "$0" && shift && exec .venv/bin/python "$@"'


def checkout(directory: Path, name: str, where: Path) -> ConnectKv:
    """A cluster that runs that one."""
    system = ConnectKv(directory / name)
    system.name = name
    for node in system.nodes:
        node.wrapper = ["bash", "-c", IN_CHECKOUT, str(where.resolve())]
        at = node.arguments.index("--machine")  # earlier versions have it elsewhere
        node.arguments = [*node.arguments[:at], *node.arguments[at + 2 :]]
    return system


async def load(system: KeyValueSystem, name: str, calls: int) -> tuple[float, float, float]:
    """Median milliseconds, calls a second, and processor microseconds of all servers for a call."""
    member, method, message, callers, times = LOADS[name]
    host, _, port = system.addresses[member].rpartition(":")
    numbers, took = iter(range(calls * times)), list[float]()
    async with await Channel.connect(host, int(port)) as channel:
        for _ in range(WARMING):
            await channel.unary(f"/etcdserverpb.KV/{method}", message)

        async def caller() -> None:
            for _ in numbers:
                began = time.perf_counter()
                await channel.unary(f"/etcdserverpb.KV/{method}", message)
                took.append(time.perf_counter() - began)

        used, began = system.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        seconds, used = time.perf_counter() - began, system.cpu_seconds() - used
    return median(took) * 1e3, len(took) / seconds, used / len(took) * 1e6


async def compare(rounds: int, calls: int, checkouts: dict[str, Path]) -> None:
    """Start all, measure in turns, print medians."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    program = find_etcd()
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        systems: list[KeyValueSystem] = [checkout(directory, *one) for one in checkouts.items()]
        if program is not None:
            systems.append(Etcd(directory / "etcd", program))
        try:
            for system in systems:
                system.directory.mkdir(parents=True, exist_ok=True)
                await system.start()
                await system.leader_first()
            for _ in range(rounds):
                for system in systems:
                    for name in LOADS:
                        found[name, system.name].append(await load(system, name, calls))
        finally:
            for system in systems:
                await system.kill()
    for (name, who), figures in found.items():
        latency, rate, used = (median(values) for values in zip(*figures, strict=True))
        print(f"{name:34}{who:12}{latency:8.3f} ms{rate:9.0f}/s{used:8.0f} us of processor")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200, help="of one caller's puts, in each round")
    parser.add_argument("checkouts", nargs="+", metavar="NAME=DIRECTORY")
    given = parser.parse_args()
    named = dict(one.split("=", 1) for one in given.checkouts)
    checkouts = {name: Path(where) for name, where in named.items()}
    uvloop.run(compare(given.rounds, given.calls, checkouts))


if __name__ == "__main__":
    main()
