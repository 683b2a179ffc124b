"""What kube-apiserver asks of its store is answered as etcd answers it, step by step."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from benchmarks import kubernetes
from connect_kv import errors
from connect_kv.client.client import Client
from connect_kv.client.etcd import connect_etcd
from connect_kv.rpc.kv_pb2 import TxnResponse
from connect_kv.testing.processes import ProcessCluster
from tests.etcd import Etcd, etcd_or_skip

OBJECTS = 120


def told(answer: TxnResponse) -> tuple[object, ...]:
    """All of it but whose it is."""
    copy = TxnResponse()
    copy.CopyFrom(answer)
    revision = copy.header.revision
    copy.ClearField("header")
    for part in copy.responses:
        getattr(part, part.WhichOneof("response") or "").ClearField("header")
    return revision, copy.SerializeToString(deterministic=True)


async def life(client: Client) -> list[object]:
    """Objects are created, changed, listed, watched, deleted; what was answered, in order."""
    rng = random.Random(7)
    steps: list[object] = []
    revisions: dict[bytes, int] = {}
    lease, _ = await client.grant_lease(3600, id=4711)
    start = (await client.range("a", count_only=True)).header.revision
    events: list[object] = []
    seen = asyncio.Event()

    async def watch() -> None:
        async with client.watch(
            kubernetes.PREFIX, prefix=True, prev_kv=True, start_revision=start + 1
        ) as watching:
            async for event in watching:
                events.append(event.SerializeToString(deterministic=True))
                if event.kv.key == b"/registry/pods/last":
                    seen.set()
                    return

    watching = asyncio.create_task(watch())
    for number in range(OBJECTS):
        key = kubernetes.key_of(number)
        answer = await kubernetes.create(client, key, rng.randbytes(50), lease if number % 9 == 0 else 0)
        revisions[key] = answer.header.revision
        steps.append(told(answer))
    steps.append(told(await kubernetes.create(client, kubernetes.key_of(3), b"there already")))
    listed, objects = await kubernetes.list_pages(client, kubernetes.PREFIX, 17)
    steps.append((listed, [one.SerializeToString(deterministic=True) for one in objects]))
    for _ in range(OBJECTS):
        key = rng.choice(sorted(revisions))
        behind = revisions[key] - rng.choice([0, 0, 0, 1])
        change = rng.random()
        if change < 0.7:
            answer = await kubernetes.update(client, key, rng.randbytes(60), behind)
        else:
            answer = await kubernetes.delete(client, key, behind)
        if answer.succeeded and change >= 0.7:
            del revisions[key]
        elif answer.succeeded:
            revisions[key] = answer.header.revision
        steps.append(told(answer))
    steps.append(told(await kubernetes.delete(client, b"/registry/pods/none", 5)))
    for revision in (listed, 0):
        page = await client.range(
            kubernetes.PREFIX, kubernetes.txn_end(kubernetes.PREFIX), limit=5, revision=revision
        )
        steps.append((page.more, page.count, page.header.revision, [one.key for one in page.kvs]))
    steps.append(await kubernetes.compact(client, 0, listed + 10))
    steps.append(await kubernetes.compact(client, 0, listed + 12))
    steps.append(await kubernetes.compact(client, 1, listed + 12))
    with pytest.raises(errors.Compacted):
        await client.range(kubernetes.PREFIX, prefix=True, revision=listed)
    await client.revoke_lease(lease)
    last = await kubernetes.create(client, b"/registry/pods/last", b"")
    steps.append(told(last))
    async with asyncio.timeout(30):
        await seen.wait()
    await watching
    return [*steps, events]


async def test_as_etcd_does(tmp_path: Path) -> None:
    server = Etcd(tmp_path / "etcd", etcd_or_skip())
    async with server, connect_etcd(server.client_address, timeout=30) as client:
        theirs = await life(client)
    ours = ProcessCluster(tmp_path / "ours", 3)
    async with ours, connect_etcd(ours.nodes[1].client_address, timeout=30) as client:
        found = await life(client)
    assert len(theirs) == len(found)
    for number, (one, other) in enumerate(zip(theirs, found, strict=True)):
        assert one == other, number


async def test_the_measurement_measures_all_of_it(tmp_path: Path) -> None:
    ours = ProcessCluster(tmp_path / "ours", 1)
    async with ours, connect_etcd(ours.nodes[0].client_address, timeout=30) as client:
        found = await kubernetes.measure(client, 100, 60)
    assert len(found) == 6
    assert all(one.latencies and one.seconds > 0 for one in found.values())
