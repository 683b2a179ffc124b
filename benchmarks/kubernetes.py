"""What kube-apiserver asks of its store, of three members of each system in turn:
``python -m benchmarks.kubernetes --objects 10000 --watches 200``.

The shapes are those of its etcd3 storage: a create is a transaction on a key that was never changed, an
update and a delete are transactions on the revision that was read, with a read of the present one where that
fails; a list goes in pages of 500 at one revision; watches want the value before and progress; a compaction
goes through a key that only one of several servers may change. Source: k8s.io/apiserver,
pkg/storage/etcd3 (store.go, watcher.go, compact.go).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.systems import ConnectKv, Etcd, KeyValueSystem
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.client.etcd import connect_etcd
from connect_kv.rpc.kv_pb2 import KeyValue, TxnResponse
from tests.etcd import find_etcd

PREFIX = b"/registry/pods/"
COMPACTED = b"compact_rev_key"
PAGE = 500
_NAMESPACES = 50
_WORKERS = 50


def key_of(number: int) -> bytes:
    """Of an object."""
    return PREFIX + b"namespace-%d/pod-%06d" % (number % _NAMESPACES, number)


async def create(client: Client, key: bytes, value: bytes, lease: int = 0) -> TxnResponse:
    """An object that is not there yet."""
    return await client.transaction(
        compare=[txn.mod_revision(key, "=", 0)], success=[txn.put(key, value, lease=lease)]
    )


async def update(client: Client, key: bytes, value: bytes, revision: int) -> TxnResponse:
    """An object as it was read at `revision`; as it is now, if that has changed."""
    return await client.transaction(
        compare=[txn.mod_revision(key, "=", revision)],
        success=[txn.put(key, value)],
        failure=[txn.get(key)],
    )


async def delete(client: Client, key: bytes, revision: int) -> TxnResponse:
    """The same, to end it."""
    return await client.transaction(
        compare=[txn.mod_revision(key, "=", revision)], success=[txn.delete(key)], failure=[txn.get(key)]
    )


async def list_pages(client: Client, prefix: bytes, page: int = PAGE) -> tuple[int, list[KeyValue]]:
    """(revision, objects): all pages at the revision of the first."""
    found: list[KeyValue] = []
    start, revision = prefix, 0
    while True:
        answer = await client.range(start, txn_end(prefix), limit=page, revision=revision)
        revision = revision or answer.header.revision
        found += answer.kvs
        if not answer.more:
            return revision, found
        start = found[-1].key + b"\0"


def txn_end(prefix: bytes) -> bytes:
    """Where a prefix that ends with no 0xff ends."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


async def compact(client: Client, version: int, revision: int) -> tuple[bool, int]:
    """Compact up to `revision`, if no other server has since `version`: (whether, the key's version now)."""
    answer = await client.transaction(
        compare=[txn.version(COMPACTED, "=", version)],
        success=[txn.put(COMPACTED, b"%d" % revision)],
        failure=[txn.get(COMPACTED)],
    )
    if not answer.succeeded:
        return False, answer.responses[0].response_range.kvs[0].version
    await client.compact(revision)
    return True, version + 1


@dataclass(slots=True)
class Measured:
    """One kind of requests."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    def line(self) -> str:
        """Rate, and latencies in milliseconds."""
        ordered = sorted(self.latencies)

        def at(share: float) -> float:
            return 1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return f"{len(ordered) / self.seconds:,.0f}/s | {at(0.5):.1f} | {at(0.99):.1f}"


async def timed(calls: Sequence[Callable[[], Awaitable[object]]], workers: int = _WORKERS) -> Measured:
    """All of them, so many at a time."""
    measured, waiting = Measured(), iter(calls)

    async def work() -> None:
        for call in waiting:
            began = time.perf_counter()
            await call()
            measured.latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    measured.seconds = time.perf_counter() - began
    return measured


async def measure(client: Client, objects: int, watches: int) -> dict[str, Measured]:
    """All kinds in turn; the watches see every change, and the time until each does is measured."""
    rng = random.Random(1)
    revisions: dict[bytes, int] = {}
    sent: dict[tuple[bytes, int], float] = {}
    seen = Measured()

    async def creates(number: int) -> None:
        key = key_of(number)
        answer = await create(client, key, rng.randbytes(1000))
        assert answer.succeeded
        revisions[key] = answer.header.revision

    async def updates(key: bytes) -> None:
        began = time.perf_counter()
        answer = await update(client, key, rng.randbytes(1000), revisions[key])
        assert answer.succeeded
        revisions[key] = answer.header.revision
        sent[key, answer.header.revision] = began

    async def deletes(key: bytes) -> None:
        assert (await delete(client, key, revisions.pop(key))).succeeded

    async def lists() -> None:
        assert len((await list_pages(client, PREFIX))[1]) == len(revisions)

    async def lists_one() -> None:
        await list_pages(client, PREFIX + b"namespace-%d/" % rng.randrange(_NAMESPACES))

    found = {"create": await timed([partial(creates, number) for number in range(objects)])}
    arrived: dict[tuple[bytes, int], float] = {}
    expected = min(objects, 5000)

    async def watch(number: int, ready: asyncio.Event) -> None:
        prefix = PREFIX + b"namespace-%d/" % (number % _NAMESPACES)
        left = sum(key.startswith(prefix) for key in chosen)
        async with client.watch(prefix, prefix=True, prev_kv=True, start_revision=start + 1) as events:
            ready.set()
            async for event in events:
                arrived.setdefault((event.kv.key, event.kv.mod_revision), time.perf_counter())
                left -= 1
                if not left:
                    return

    chosen = rng.sample(sorted(revisions), expected)
    start = (await client.range(PREFIX, count_only=True)).header.revision
    ready = [asyncio.Event() for _ in range(watches)]
    watching = [asyncio.create_task(watch(number, one)) for number, one in enumerate(ready)]
    await asyncio.gather(*(one.wait() for one in ready))
    began = time.perf_counter()
    found["update, watched"] = await timed([partial(updates, key) for key in chosen])
    await asyncio.gather(*watching)
    seen.seconds = time.perf_counter() - began
    seen.latencies = [arrived[change] - at for change, at in sent.items()]
    found["until a watch has it"] = seen
    found["list of all, pages of 500"] = await timed([lists] * 5, 1)
    found["list of a namespace"] = await timed([lists_one] * 200, 10)
    found["delete"] = await timed([partial(deletes, key) for key in sorted(revisions)[: objects // 2]])
    done, _ = await compact(client, 0, start)
    assert done
    return found


async def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--watches", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--members", type=int, default=3)
    options = parser.parse_args()
    program = find_etcd()
    systems: list[Callable[[Path], KeyValueSystem]] = [partial(ConnectKv, size=options.members)]
    if program is not None:
        systems.append(partial(Etcd, program=program, size=options.members))
    for number in range(options.rounds):
        print(f"round {number + 1}: {options.objects} objects, {options.watches} watches")
        for make in systems:
            with tempfile.TemporaryDirectory() as name:
                system = make(Path(name))
                async with system, connect_etcd(system.addresses[0], timeout=60) as client:
                    found = await measure(client, options.objects, options.watches)
            for what, measured in found.items():
                print(f"| {system.name} | {what} | {measured.line()} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
