"""Rounds of moving in and out again: ``python -m tests.moving_rounds --rounds 20 --keys 100000``.

Each round: an etcd is filled at random (transactions, deletions, leases, users, compactions in between),
moves in, and moves out again into each etcd that is here. Between any two, all changes since the compacted
revision are compared, all keys at some revisions, HashKV at these, leases with their keys, users, roles; the
passwords too, for authentication is on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from pathlib import Path

import connect_kv
from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.client.etcd import connect_etcd
from connect_kv.rpc.kv_pb2 import RequestOp
from connect_kv.testing.processes import ProcessCluster
from tests import moving
from tests.cluster.test_backup import command
from tests.cluster.test_moving_out import etcds, restored
from tests.etcd import Etcd

ROOT = moving.PASSWORDS["root"]
_OPERATIONS = 100
_AT_ONCE = 8


async def fill(client: Client, seed: int, keys: int) -> None:
    """As many keys, most of them more than once; some deleted, some on leases; compacted now and then."""
    rng = random.Random(seed)
    history = moving.History(client, seed, 50)
    await history.users()
    await history.changes(100)
    leases = [(await client.grant_lease(rng.randrange(5000, 1 << 20)))[0] for _ in range(20)]
    names = [b"key/%016x" % rng.getrandbits(64) for _ in range(keys)]
    sequence = names + rng.sample(names, keys // 2)
    rng.shuffle(sequence)
    parts = [sequence[at : at + _OPERATIONS] for at in range(0, len(sequence), _OPERATIONS)]
    for at in range(0, len(parts), _AT_ONCE):
        together = parts[at : at + _AT_ONCE]
        await asyncio.gather(*(change(client, rng, part, leases) for part in together))
        if rng.random() < 0.02:
            head = await moving.revision_of(client)
            with contextlib.suppress(errors.Compacted):  # it may lie below the last one
                await client.compact(head - rng.randrange(30))
    await client.revoke_lease(leases.pop())
    await client.delete("key/0", "key/1")
    await history.changes(100)


async def change(client: Client, rng: random.Random, keys: list[bytes], leases: list[int]) -> None:
    """One transaction."""

    def operation(key: bytes) -> RequestOp:
        if rng.random() < 0.15:
            return txn.delete(key)
        value = rng.randbytes(rng.choice([0, 20, 256, 256, 1000]))
        return txn.put(key, value, lease=rng.choice([0, 0, rng.choice(leases)]))

    await client.transaction(success=[operation(key) for key in sorted(set(keys))], timeout=30)


async def round_of(seed: int, keys: int, directory: Path, release: str) -> list[str]:
    """Returns the differences, in words."""
    server, _ = etcds()[release]
    source = Etcd(directory / "source", server, fsync=False)
    began = time.monotonic()
    snapshot = directory / "snapshot"
    async with source:
        async with connect_etcd(source.client_address, timeout=60) as client:
            await fill(client, seed, keys)
            theirs = await moving.holds(client, sample=6, seed=seed)
            await client.auth.enable()
        async with connect_etcd(source.client_address, timeout=60, user="root", password=ROOT) as client:
            with snapshot.open("wb") as file:
                async for piece in client.maintenance.snapshot():
                    file.write(piece.blob)
    filled = time.monotonic()
    ours = ProcessCluster(directory / "ours", 1)
    (node,) = ours.nodes
    report = await command(
        "import-etcd", str(snapshot), "--name", node.name, "--data-dir", str(node.data_dir),
        "--listen-peer", node.peer_address, "--initial-cluster", ours.initial_cluster,
    )  # fmt: skip
    imported = time.monotonic()
    out = directory / "out"
    async with ours:
        async with connect_kv.connect(
            ours.endpoints, session=False, timeout=60, user="root", password=ROOT
        ) as client:
            told = moving.differences(theirs, await moving.holds(client, sample=6, seed=seed))
        await command("snapshot", "save", str(out), "--endpoints", ours.endpoints, "--user", "root:r00t")
    told = [f"after moving in: {one}" for one in told]
    for name, (program, tool) in etcds().items():
        target = await restored(out, directory / name.replace("'", ""), program, tool)
        async with (
            target,
            connect_etcd(target.client_address, timeout=60, user="root", password=ROOT) as client,
        ):
            again = moving.differences(theirs, await moving.holds(client, sample=6, seed=seed))
        told += [f"after moving out to {name}: {one}" for one in again]
    print(
        f"seed {seed}, from {release}: {report['keys']} keys, {report['changes']} changes, "
        f"{len(theirs.events)} events, {report['leases']} leases, compacted at {report['compacted']} of "
        f"{report['revision']}; filled and read in {filled - began:.0f} s, moved in in "
        f"{imported - filled:.1f} s; differences: {told or 'none'}",
        flush=True,
    )
    return told


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    releases = list(etcds())
    differing = 0
    for seed in range(options.seed, options.seed + options.rounds):
        with tempfile.TemporaryDirectory() as name:
            differing += bool(await round_of(seed, options.keys, Path(name), releases[seed % len(releases)]))
    print(f"{options.rounds} rounds, {differing} with differences, etcds: {', '.join(releases)}")
    return int(bool(differing))


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
