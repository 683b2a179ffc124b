"""A follower that is 100 ms away: nodes in network namespaces, joined by a switch of packets."""

from __future__ import annotations

from benchmarks import loads
from benchmarks.run import BenchmarkRun
from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem
from chaos.namespaces import NamespaceNetwork, NamespacesNotAllowed
from connect_kv.testing.network import PERFECT, Links, Quality

FAR = Quality(delay=0.05)
"""The delay of a distant link, each way, in seconds."""
OURS, THEIRS = ("a1", "a2", "a3"), ("b1", "b2", "b3")


async def far(run: BenchmarkRun) -> None:
    """Puts at the two near nodes, the third as near as they, and then 100 ms away. Needs root."""
    network = NamespaceNetwork()
    try:
        places = await network.start([*OURS, *THEIRS])
    except NamespacesNotAllowed as error:
        print(f"NOT MEASURED, far: {error}", flush=True)
        return
    try:
        near = [[places[name] for name in names] for names in (OURS, THEIRS)]
        ours = ConnectKv(run.directory / "ours", places=near[0])
        theirs = Etcd(run.directory / "etcd", run.etcd, places=near[1])
        async with ours, theirs:
            await _measure(run, network, ours, theirs)
    finally:
        await network.close()


async def _measure(run: BenchmarkRun, network: NamespaceNetwork, ours: ConnectKv, theirs: Etcd) -> None:
    moved = [(await _far_member(ours, OURS), Links(network, OURS))]
    moved.append((await _far_member(theirs, THEIRS), Links(network, THEIRS)))
    for where, quality in (("near", PERFECT), ("100 ms away", FAR)):
        for name, links in moved:
            links.around(name, quality)
        for callers, total in ((1, 200), (100, 3000), (1000, 15_000)):
            counts = ("--callers", str(callers), "--clients", "1", "--total", str(run.some(total, least=100)))
            row = f"put {callers}, one follower {where}"
            await run.attempt(f"session {row}", ours, loads.bench(ours, "put", *counts))
            for system in (ours, theirs):
                fewer = run.some(min(total, 4000), least=100)
                load = loads.unary(system, "Put", loads.put_body(), callers=callers, total=fewer)
                await run.attempt(f"unary {row}", system, load)


async def _far_member(system: KeyValueSystem, names: tuple[str, ...]) -> str:
    """A follower; clients use the other two, the leader first."""
    leader = (await system.leader()).client_address
    everywhere = [member.client_address for member in system.members]
    number = next(number for number, address in enumerate(everywhere) if address != leader)
    system.addresses = [leader, *(one for one in everywhere if one not in (leader, everywhere[number]))]
    return names[number]
