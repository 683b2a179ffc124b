"""Members of the version before, whose gRPC was grpcio's, and of this one in one cluster.

Needs a checkout of that version with an environment of its own: CONNECT_KV_PREVIOUS names one, and where
CONNECT_KV_FULL is set it is made from this repository's history, in some minutes. Otherwise it is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import connect_kv
from connect_kv.client.client import Client
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until
from tests.cluster.conftest import scaled
from tests.cluster.workload import Workload, check_nothing_lost
from tests.etcd import skip_loudly

ROOT = Path(__file__).parents[2]
MACHINES = {"counter": "tests.cluster.machines:Counter"}
PREVIOUS = "e6a1419"
"""The last commit before members spoke over HTTP/2 of our own."""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of that version that can be run."""
    if given := os.environ.get("CONNECT_KV_PREVIOUS"):
        return Path(given)
    if not os.environ.get("CONNECT_KV_FULL"):
        skip_loudly("set CONNECT_KV_FULL to build the version before and upgrade from it")
    git = ["git", "-C", str(ROOT)]
    known = subprocess.run([*git, "cat-file", "-e", f"{PREVIOUS}^{{commit}}"], capture_output=True)
    if known.returncode:
        skip_loudly(f"the history of this repository does not go back to {PREVIOUS}")
    checkout = tmp_path_factory.mktemp("previous") / "checkout"
    archive = subprocess.run([*git, "archive", PREVIOUS], capture_output=True, check=True)
    checkout.mkdir()
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
    make = '. scripts/environment.sh; make_environment ""'
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONNECT_KV")}
    made = subprocess.run(["bash", "-c", make], cwd=checkout, env=environment)
    if made.returncode:
        skip_loudly("its environment cannot be made here")
    return checkout


def become(node: NodeProcess, checkout: Path | None) -> None:
    """Have it run that checkout from its next start on; None: this one."""
    # The interpreter that is named next is this one's: it stands as $0, which nothing uses.
    there = 'cd "$CHECKOUT" && exec "$CHECKOUT/.venv/bin/python" "$@"'
    node.wrapper = [] if checkout is None else ["bash", "-c", there]
    node.environment["CHECKOUT"] = str(checkout or "")


async def exchange(cluster: ProcessCluster, node: NodeProcess, checkout: Path | None) -> None:
    """Stop it in order, start that version in its place, wait until it serves."""
    await node.stop()
    become(node, checkout)
    await node.start()
    await node.ready(60)


async def lead(client: Client, cluster: ProcessCluster, node: NodeProcess) -> None:
    """Have that member lead."""
    leader = await cluster.leader(30)
    if leader is not node:
        status = await client.status(node.client_address)
        await client.maintenance.move_leader(leader.client_address, status.header.member_id)

    async def leads() -> bool:
        return await cluster.leader(30) is node

    await until(leads, 30, f"{node.name} to lead")


async def each_serves(cluster: ProcessCluster, mark: str) -> None:
    """Every member takes a put, and reads what the others took."""
    for node in cluster.nodes:
        async with connect_kv.connect(node.client_address) as client:
            await client.put(f"{mark}/{node.name}", node.name, timeout=30)
    for node in cluster.nodes:
        async with connect_kv.connect(node.client_address) as client:
            for other in cluster.nodes:
                found = await client.get(f"{mark}/{other.name}", timeout=30)
                assert found is not None, f"{mark}: {node.name} has not what {other.name} took"
                assert found.value == other.name.encode()


async def falls_behind(cluster: ProcessCluster, node: NodeProcess, client: Client) -> None:
    """Stop it until it needs a snapshot, and start it as it was."""
    await node.stop()
    for number in range(int(scaled(300, 3000))):
        await client.put(f"behind/{number % 20}", b"v" * 10_000, timeout=60)
    await node.start()
    await node.ready(60)
    assert "installed a snapshot" in node.log_tail(200)


async def test_one_member_after_the_other_and_one_back_again(tmp_path: Path, previous: Path) -> None:
    """Callers go on all the while; either version leads the other, and sends it a snapshot."""
    few = ("--catch-up-entries", "50", "--snapshot-count", "50")
    cluster = ProcessCluster(tmp_path, machines=MACHINES, arguments=few)
    for node in cluster.nodes:
        become(node, previous)
    one, two, three = cluster.nodes
    async with cluster, cluster.client() as client:
        async with Workload(cluster, callers=10) as workload:
            await workload.progress()
            await exchange(cluster, one, None)
            await lead(client, cluster, one)  # this version leads two of the other
            await workload.progress()
            await each_serves(cluster, "first")
            await falls_behind(cluster, two, client)
            await lead(client, cluster, two)  # and is led by it
            await workload.progress()
            await each_serves(cluster, "led")
            await falls_behind(cluster, one, client)
            await exchange(cluster, one, previous)  # an upgrade that is given up
            await exchange(cluster, one, None)
            for node in (two, three):
                await exchange(cluster, node, None)
                await workload.progress()
            await each_serves(cluster, "last")
        await check_nothing_lost(workload)
        assert not workload.errors, workload.errors[:3]
    print(f"{len(workload.acknowledged)} puts, {workload.increments} increments", file=sys.stderr)
