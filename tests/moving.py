"""What is written into an etcd at random, and all that can be read of it: to compare two stores by."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.rpc.auth_pb2 import Permission
from connect_kv.rpc.kv_pb2 import KeyValue, RequestOp

PASSWORDS = {"root": "r00t", "alice": "wonder", "bob": "builder"}


class History:
    """Changes of every kind, by a seed."""

    def __init__(self, client: Client, seed: int, keys: int, *, negative_leases: bool = False) -> None:
        """etcd 3.5.1 forgets leases with negative ids when it starts."""
        self._lowest = -(1 << 62) if negative_leases else 1
        self._client = client
        self._rng = random.Random(seed)
        self._keys = keys
        self._leases: list[int] = []

    async def users(self) -> None:
        auth = self._client.auth
        for name, password in PASSWORDS.items():
            await auth.add_user(name, password)
        await auth.add_user("by-certificate", None)
        await auth.add_role("some")
        await auth.grant("some", Permission.READWRITE, "k0", "k5")
        await auth.grant("some", Permission.READ, "k7", prefix=True)
        await auth.add_role("empty")
        await auth.grant_role("alice", "some")
        await auth.grant_role("root", "root")

    async def changes(self, count: int, *, compact: float = 0.02) -> None:
        for _ in range(count):
            await self._change(compact)

    async def _change(self, compact: float) -> None:
        rng, client = self._rng, self._client
        choice = rng.random()
        if choice < compact:
            head = await revision_of(client)
            try:
                await client.compact(rng.randrange(max(1, head - 40), head + 1), physical=True)
            except errors.Compacted:
                return
        elif choice < 0.06 or not self._leases:
            granted = rng.choice([0, 0, rng.randrange(self._lowest, 1 << 62)])
            self._leases.append((await client.grant_lease(rng.randrange(1000, 1 << 20), id=granted))[0])
        elif choice < 0.08:
            await client.revoke_lease(self._leases.pop(rng.randrange(len(self._leases))))
        elif choice < 0.2:
            await client.delete(self._key())
        elif choice < 0.23:
            await client.delete(self._key(), self._key() + b"\xff")
        elif choice < 0.5:
            keys = {self._key() for _ in range(rng.randrange(1, 12))}
            await client.transaction(success=[self._operation(key) for key in sorted(keys)])
        else:
            await client.put(self._key(), self._value(), lease=self._lease())

    def _operation(self, key: bytes) -> RequestOp:
        if self._rng.random() < 0.3:
            return txn.delete(key)
        return txn.put(key, self._value(), lease=self._lease())

    def _lease(self) -> int:
        return self._rng.choice(self._leases) if self._leases and self._rng.random() < 0.3 else 0

    def _key(self) -> bytes:
        return b"k%d" % self._rng.randrange(self._keys) + self._rng.choice([b"", b"", b"\0", b"\xff\0"])

    def _value(self) -> bytes:
        return self._rng.randbytes(self._rng.choice([0, 1, 30, 300, 5000]))


@dataclass(slots=True)
class Holds:
    """Everything that can be read of a store."""

    head: int
    compacted: int
    hashes: dict[int, int] = field(default_factory=dict)
    """HashKV at some revisions."""
    past: dict[int, list[KeyValue]] = field(default_factory=dict)
    """All keys at some revisions."""
    events: list[tuple[int, bytes]] = field(default_factory=list)
    """All changes between the compacted revision and the last: revision, and the event encoded."""
    leases: dict[int, tuple[int, Sequence[bytes]]] = field(default_factory=dict)
    """Granted TTL, and keys."""
    users: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, list[bytes]] = field(default_factory=dict)


async def revision_of(client: Client) -> int:
    return (await client.range("\0", count_only=True)).header.revision


async def holds(client: Client, *, sample: int = 0, seed: int = 0) -> Holds:
    """Read it: at every revision that is left, or at `sample` of them."""
    head = await revision_of(client)
    found = Holds(head, (await client.maintenance.hash_kv()).compact_revision)
    revisions = list(range(max(found.compacted, 1), head + 1))
    if sample:
        inner = revisions[1:-1]
        chosen = random.Random(seed).sample(inner, min(sample, len(inner)))
        revisions = sorted({revisions[0], revisions[-1], *chosen})
    for revision in revisions:
        found.past[revision] = await all_keys(client, revision)
        if revision > found.compacted:
            found.hashes[revision] = (await client.maintenance.hash_kv(revision=revision, timeout=60)).hash
    if head > max(found.compacted, 1):
        await _events(client, found)
    for lease in sorted(await client.leases()):
        left = await client.lease_time_to_live(lease, keys=True)
        found.leases[lease] = left.grantedTTL, sorted(left.keys)
    for user in await client.auth.users():
        found.users[user] = await client.auth.user(user)
    for role in await client.auth.roles():
        permissions = (await client.auth.role(role)).permissions
        found.roles[role] = [one.SerializeToString() for one in permissions]
    return found


async def all_keys(client: Client, revision: int) -> list[KeyValue]:
    """In pages: an etcd sends no message of any size."""
    found: list[KeyValue] = []
    start = b"\0"
    while True:
        page = await client.range(start, b"\0", revision=revision, limit=2000, timeout=60)
        found += page.kvs
        if not page.more:
            return found
        start = found[-1].key + b"\0"


async def _events(client: Client, found: Holds) -> None:
    async with client.watch("", prefix=True, start_revision=max(found.compacted, 1) + 1) as watch:
        async for event in watch:
            if event.kv.mod_revision >= found.head:
                return
            found.events.append((event.kv.mod_revision, event.SerializeToString()))


def differences(one: Holds, other: Holds) -> list[str]:
    """In words; none if both hold the same."""
    told = []
    if (one.head, one.compacted) != (other.head, other.compacted):
        told.append(f"revisions: {one.head}, {one.compacted} and {other.head}, {other.compacted}")
    told += [f"HashKV at {at}" for at in one.hashes if one.hashes[at] != other.hashes.get(at)]
    told += [f"keys at {at}" for at in one.past if one.past[at] != other.past.get(at)]
    told += [
        name for name in ("events", "leases", "users", "roles") if getattr(one, name) != getattr(other, name)
    ]
    return told
