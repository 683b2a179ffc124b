"""The PyPI package aetcd against a cluster: ``aetcd_program.py HOST:PORT session|faults``.

Exits 0 if everything was as an etcd client expects. A process of its own, as any user's would be. The
environment says how: CLIENT_CA, CLIENT_CERT, CLIENT_KEY, CLIENT_USER, CLIENT_PASSWORD; and below which prefix
it writes through faults: CLIENT_PREFIX.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aetcd
import grpc

PREFIX = os.environ.get("CLIENT_PREFIX", "f").encode()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    for _ in range(1500):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError(what)


async def keys_and_values(client: Any) -> None:
    assert await client.get(b"missing") is None
    await client.put(b"a", b"1")
    previous = await client.put(b"a", b"2", prev_kv=True)
    assert previous.prev_kv.value == b"1"
    found = await client.get(b"a")
    assert (found.value, found.version) == (b"2", 2)
    for name in (b"p/1", b"p/2", b"p/3"):
        await client.put(name, name)
    assert [one.key for one in await client.get_prefix(b"p/")] == [b"p/1", b"p/2", b"p/3"]
    backwards = await client.get_prefix(b"p/", sort_order="descend", sort_target="key")
    assert [one.key for one in backwards] == [b"p/3", b"p/2", b"p/1"]
    assert [one.key for one in await client.get_range(b"p/1", b"p/3")] == [b"p/1", b"p/2"]
    assert await client.replace(b"a", b"2", b"3")
    assert not await client.replace(b"a", b"2", b"4")
    assert (await client.delete(b"a", prev_kv=True)).prev_kv.value == b"3"
    assert (await client.delete_prefix(b"p/")).deleted == 3
    revision = (await client.put(b"a", b"1")).header.revision
    await client.compact(revision, physical=True)


async def transactions(client: Any) -> None:
    make = client.transactions
    await client.put(b"t", b"1")
    held, responses = await client.transaction(
        compare=[make.value(b"t") == b"1", make.version(b"t") > 0],
        success=[make.put(b"t", b"2"), make.get(b"t")],
        failure=[make.delete(b"t")],
    )
    assert held
    assert responses[1][0][0] == b"2"
    held, _ = await client.transaction(
        compare=[make.create(b"t") == 0], success=[make.put(b"t", b"no")], failure=[make.delete(b"t")]
    )
    assert not held
    assert await client.get(b"t") is None


async def watches(client: Any) -> None:
    watch = await client.watch_prefix(b"w/", prev_kv=True)
    revision = (await client.put(b"w/1", b"1")).header.revision
    await client.put(b"w/1", b"2")
    await client.delete(b"w/1")
    seen = await events_of(watch, 3)
    assert [(one.kind, one.kv.value) for one in seen] == [("PUT", b"1"), ("PUT", b"2"), ("DELETE", b"")]
    assert seen[1].prev_kv.value == b"1"
    await watch.cancel()
    past = await client.watch(b"w/1", start_revision=revision, kind=aetcd.EventKind.PUT)
    assert [one.kv.value for one in await events_of(past, 2)] == [b"1", b"2"]
    await past.cancel()


async def events_of(watch: Any, count: int) -> list[Any]:
    seen = []
    async with asyncio.timeout(60):
        async for event in watch:
            seen.append(event)
            if len(seen) == count:
                break
    return seen


async def leases(client: Any) -> None:
    lease = await client.lease(30)
    await client.put(b"leased", b"x", lease=lease)
    assert (await lease.granted_ttl(), await lease.keys()) == (30, [b"leased"])
    assert 0 < await lease.remaining_ttl() <= 30
    await lease.refresh()
    await lease.revoke()
    assert await client.get(b"leased") is None
    dying = await client.lease(2)
    await client.put(b"dying", b"x", lease=dying)

    async def gone() -> bool:
        return await client.get(b"dying") is None

    await until(gone, "the lease to end")


async def locks(client: Any) -> None:
    async with client.lock(b"lock", ttl=20) as lock:
        assert await lock.is_acquired()
        # Under its bare name, where the lock service and etcdctl do not look: docs/api.md says so.
        assert await client.get(b"lock") is not None
        assert not list(await client.get_prefix(b"lock/"))
    members = [member async for member in client.members()]
    assert sorted(member.name for member in members) == ["n1", "n2", "n3"]
    assert (await client.status()).leader.id in {member.id for member in members}


async def faults(client: Any) -> None:
    """Write and watch through a node that lives while the leader dies."""
    watch = await client.watch_prefix(b"%s/" % PREFIX)
    seen: list[tuple[int, int]] = []

    async def listen() -> None:
        async for event in watch:
            seen.append((int(event.kv.key.rpartition(b"/")[2]), event.kv.mod_revision))

    listener = asyncio.create_task(listen())
    lease = await client.lease(10)
    await client.put(b"%s alive" % PREFIX, b"x", lease=lease)
    finish = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    number = retried = 0
    while not finish.done() or number < 200:
        while True:
            try:
                await client.put(b"%s/%d" % (PREFIX, number), b"x")
                break
            except aetcd.ClientError:
                retried += 1
                await asyncio.sleep(0.02)
        if number % 20 == 0:
            await renew(lease)
        number += 1
        if number == 100:
            print("READY", flush=True)

    async def told() -> bool:
        assert not listener.done(), listener
        return any(one == number - 1 for one, _ in seen)

    await until(told, "the last event")
    listener.cancel()
    revisions = [revision for _, revision in seen]
    assert revisions == sorted(set(revisions)), "each revision once, in order"
    assert {one for one, _ in seen} == set(range(number)), "every write was seen"
    assert (await client.get(b"%s alive" % PREFIX)).value == b"x"
    print(f"{number} writes, {retried} retried, {len(seen)} events")


async def renew(lease: Any) -> None:
    while True:
        try:
            await lease.refresh()
            return
        except aetcd.ClientError:
            await asyncio.sleep(0.02)


def over_tls() -> None:
    """It has no TLS of its own; whoever needs it hands it another kind of channel."""
    root, cert, key = (
        Path(os.environ[name]).read_bytes() if name in os.environ else None
        for name in ("CLIENT_CA", "CLIENT_CERT", "CLIENT_KEY")
    )
    if root is not None:
        credentials = grpc.ssl_channel_credentials(root, key, cert)
        aetcd.rpc.insecure_channel = lambda target, options: grpc.aio.secure_channel(
            target, credentials, options=tuple(options)
        )


async def main(address: str, mode: str) -> None:
    host, _, port = address.rpartition(":")
    over_tls()
    user = {"username": os.environ.get("CLIENT_USER"), "password": os.environ.get("CLIENT_PASSWORD")}
    async with aetcd.Client(host=host, port=int(port), timeout=10, **user) as client:
        if mode == "faults":
            await faults(client)
            return
        for part in (keys_and_values, transactions, watches, leases, locks):
            await part(client)
            print(part.__name__, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
