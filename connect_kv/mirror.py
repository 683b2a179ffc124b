"""Mirror: one store follows another while it is written to, and proves at the end that both hold the same.

First the target is made equal to the source at one revision; then each of the source's revisions is done
there as one transaction. Leases keep their ids and TTLs: they are granted at the target, kept alive there as
long as they live at the source, and revoked when they have ended there.

Not mirrored: revisions and versions of keys, older history, users and roles (nobody can read a password).
What keeps all of that is `connect-kv import-etcd`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client.client import Client
from connect_kv.client.watch import Watch
from connect_kv.rpc.kv_pb2 import Event, KeyValue, RequestOp

PAGE_KEYS = 500
MOST_OPERATIONS = 100
"""In one transaction: etcd takes 128 by default."""
MOST_BYTES = 512 << 10
"""In one transaction, unless a single value is larger."""
LEASE_SECONDS = 1.0
"""How often leases are looked after."""
RETRY_SECONDS = 0.2
_ALL = b"\0"
"""Every key from the first on, as key and as range end."""


@dataclass(slots=True)
class MirrorStanding:
    """How far it has come."""

    copied: int = 0
    """Keys that the first pass has put or deleted at the target."""
    revision: int = 0
    """Of the source: everything up to it is at the target."""
    head: int = 0
    """Of the source, as it was last heard of."""
    changes: int = 0
    """Done at the target since the first pass."""
    transactions: int = 0
    """In so many transactions of the target."""
    divided: int = 0
    """Revisions of the source with more changes than one transaction takes: done in several."""
    leases: int = 0

    @property
    def behind(self) -> int:
        """Revisions that are not at the target yet."""
        return max(0, self.head - self.revision)


@dataclass(slots=True)
class Compared:
    """What both hold."""

    keys: int = 0
    source_revision: int = 0
    target_revision: int = 0
    differences: list[str] = field(default_factory=list)
    """The first few, in words."""


class Mirror:
    """`run` copies and follows until it is cancelled; then, or beside it, `compare`."""

    def __init__(self, source: Client, target: Client) -> None:
        self._source = source
        self._target = target
        self._leases: dict[int, int] = {}
        """At the target: TTL by id."""
        self.standing = MirrorStanding()
        self._moved = asyncio.Event()

    async def run(self, *, overwrite: bool = False) -> None:
        """Copy, then follow. Raises RefusedToStart if the target holds keys and may not be overwritten;
        Compacted if the source forgets what was not seen yet: begin again.
        """
        revision = await revision_of(self._source)
        if not overwrite and (await self._target.range(_ALL, _ALL, limit=1, keys_only=True)).kvs:
            raise errors.RefusedToStart(
                "the target holds keys: name an empty one, or --overwrite what is there"
            )
        self.standing.head = revision
        await self._make_equal(revision)
        self._at(revision)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._look_after_leases())
            tasks.create_task(self._follow(revision + 1))

    async def caught_up(self) -> None:
        """Wait until what the source holds now is at the target."""
        wanted = await revision_of(self._source)
        self.standing.head = max(self.standing.head, wanted)
        while self.standing.revision < wanted:
            self._moved.clear()
            await self._moved.wait()

    async def compare(self) -> Compared:
        """Read both, each at one revision, and compare keys, values and leases."""
        found = Compared(
            source_revision=await revision_of(self._source), target_revision=await revision_of(self._target)
        )
        ours = _pages(self._source, found.source_revision)
        theirs = _pages(self._target, found.target_revision)
        async with contextlib.aclosing(ours), contextlib.aclosing(theirs):
            async for one, other in _merged(ours, theirs):
                found.keys += 1
                if (difference := _difference(one, other)) and len(found.differences) < 10:
                    found.differences.append(difference)
        return found

    # The first pass.

    async def _make_equal(self, revision: int) -> None:
        batch = _Batch()
        ours, theirs = _pages(self._source, revision), _pages(self._target, 0)
        async with contextlib.aclosing(ours), contextlib.aclosing(theirs):
            async for one, other in _merged(ours, theirs):
                if one is not None and not _difference(one, other):
                    await self._lease(one.lease)
                    continue
                key = one.key if one is not None else other.key if other is not None else b""
                operation = txn.delete(key) if one is None else await self._put(one)
                if not batch.takes([key], operation.ByteSize()):
                    await self._flush(batch)
                batch.add(key, operation)
                self.standing.copied += 1
        await self._flush(batch)

    # Following.

    async def _follow(self, start: int) -> None:
        batch = _Batch()
        async with self._source.watch("", prefix=True, start_revision=start) as watch:
            async for events, more in _by_revision(watch):
                revision = events[0].kv.mod_revision
                self.standing.head = max(self.standing.head, watch.next_revision - 1)
                size = sum(event.ByteSize() for event in events)
                if not batch.takes([event.kv.key for event in events], size):
                    await self._flush(batch)
                    self._at(revision - 1)
                self.standing.divided += len(events) > MOST_OPERATIONS
                for event in events:
                    if len(batch.operations) == MOST_OPERATIONS:
                        await self._flush(batch)
                    deleted = event.type == Event.DELETE
                    operation = txn.delete(event.kv.key) if deleted else await self._put(event.kv)
                    batch.add(event.kv.key, operation)
                self.standing.changes += len(events)
                if not more:
                    await self._flush(batch)
                    self._at(revision)

    def _at(self, revision: int) -> None:
        self.standing.revision = max(self.standing.revision, revision)
        self.standing.head = max(self.standing.head, revision)
        self._moved.set()

    async def _flush(self, batch: _Batch) -> None:
        """Do at the target what has gathered. Twice does no harm, so a lost answer is asked for again."""
        if not batch.operations:
            return
        while True:
            try:
                await self._target.transaction(success=batch.operations)
            except (errors.Unavailable, errors.OutcomeUnknown):
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
        self.standing.transactions += 1
        batch.clear()

    # Leases.

    async def _put(self, kv: KeyValue) -> RequestOp:
        return txn.put(kv.key, kv.value, lease=await self._lease(kv.lease))

    async def _lease(self, lease: int) -> int:
        """The same lease at the target; 0 if it has ended at the source: its keys will, too."""
        if not lease or lease in self._leases:
            return lease
        ttl = (await self._source.lease_time_to_live(lease)).grantedTTL
        if ttl <= 0:
            return 0
        there = (await self._target.lease_time_to_live(lease)).grantedTTL
        if there <= 0:
            await self._target.grant_lease(ttl, id=lease)
        self._leases[lease] = ttl
        self.standing.leases = len(self._leases)
        return lease

    async def _look_after_leases(self) -> None:
        """Keep those alive that live at the source, and end those that have ended there."""
        loop = asyncio.get_running_loop()
        renewed: dict[int, float] = {}
        while True:
            with contextlib.suppress(errors.Unavailable, errors.OutcomeUnknown):
                living = set(await self._source.leases())
                self.standing.head = max(self.standing.head, await revision_of(self._source))
                for lease, ttl in list(self._leases.items()):
                    if lease not in living:
                        # Its keys' deletions came, or come, as changes.
                        with contextlib.suppress(errors.Refused):
                            await self._target.revoke_lease(lease)
                        self._leases.pop(lease, None)
                        self.standing.leases = len(self._leases)
                    elif loop.time() - renewed.get(lease, -ttl) >= ttl / 4:
                        await self._target.renew_lease(lease)
                        renewed[lease] = loop.time()
            await asyncio.sleep(LEASE_SECONDS)


@dataclass(slots=True)
class _Batch:
    """Operations of one transaction: each key once."""

    operations: list[RequestOp] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    size: int = 0

    def takes(self, keys: Sequence[bytes], size: int) -> bool:
        """Whether changes of these keys go into the same transaction."""
        return (
            len(self.operations) + len(keys) <= MOST_OPERATIONS
            and self.size + size <= MOST_BYTES
            and self.keys.isdisjoint(keys)
        )

    def add(self, key: bytes, operation: RequestOp) -> None:
        """Take an operation on `key` into the transaction."""
        self.operations.append(operation)
        self.keys.add(key)
        self.size += operation.ByteSize()

    def clear(self) -> None:
        """Begin the next transaction: the operations are done."""
        self.operations.clear()
        self.keys.clear()
        self.size = 0


async def revision_of(client: Client) -> int:
    """At which a store stands."""
    return (await client.range(_ALL, count_only=True)).header.revision


async def _pages(client: Client, revision: int) -> AsyncGenerator[KeyValue, None]:
    """All keys as they were at one revision (0: now), in order."""
    start = _ALL
    while True:
        page = await client.range(start, _ALL, revision=revision, limit=PAGE_KEYS)
        revision = revision or page.header.revision
        for kv in page.kvs:
            yield kv
        if not page.more:
            return
        start = page.kvs[-1].key + b"\0"


async def _merged(
    ours: AsyncIterator[KeyValue], theirs: AsyncIterator[KeyValue]
) -> AsyncIterator[tuple[KeyValue | None, KeyValue | None]]:
    """Pairs of the same key; None where one side has it not."""
    one, other = await anext(ours, None), await anext(theirs, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.key < other.key):
            yield one, None
            one = await anext(ours, None)
        elif one is None or other.key < one.key:
            yield None, other
            other = await anext(theirs, None)
        else:
            yield one, other
            one, other = await anext(ours, None), await anext(theirs, None)


def _difference(one: KeyValue | None, other: KeyValue | None) -> str:
    """How a key differs, in words; empty if it does not."""
    if one is None or other is None:
        key = (one or other or KeyValue()).key
        return f"{key!r} is only at the {'target' if one is None else 'source'}"
    if one.value != other.value:
        return f"{one.key!r} has another value"
    return f"{one.key!r} hangs on another lease" if one.lease != other.lease else ""


async def _by_revision(watch: Watch) -> AsyncIterator[tuple[list[Event], bool]]:
    """The changes of each revision, and whether others have come behind them already.

    A watch gives a revision out once all of it has come: what cannot be had at once belongs to a later one.
    """
    following = asyncio.ensure_future(anext(watch))
    try:
        events: list[Event] = []
        while True:
            event = await following
            if events and event.kv.mod_revision != events[0].kv.mod_revision:
                yield events, True
                events = []
            events.append(event)
            following = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            if not following.done():
                yield events, False
                events = []
    finally:
        following.cancel()
