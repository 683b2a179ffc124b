"""A backup of this member's state while it goes on: the file's bytes, blob by blob."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing
from importlib.metadata import version
from typing import NamedTuple, Protocol, TypeVar

from connect_kv.backup.etcd_format import buckets
from connect_kv.backup.file import BackupHead
from connect_kv.etcd_files import writer
from connect_kv.interfaces import Clock, Identity
from connect_kv.storage.engine import View

T = TypeVar("T")

BLOB_BYTES = 32 << 10
"""Bytes of the pieces that a backup is sent in; etcd's are as large."""
SLICE_SECONDS = 0.001
"""So long the loop is held at a time,"""
SLICE_PAGES = 64
"""or for so many pages, whichever is less."""
REST_FACTOR = 4
"""While entries are applied, a slice is followed by a rest so many times as long: without, the loop would
belong to the backup and to puts by halves."""


class Blob(NamedTuple):
    """A part of the file."""

    data: bytes
    remaining: int
    """Bytes of the file still to come, the digest not counted."""


class FrozenState(Protocol):
    """A frozen state (`statemachine.database.ViewSource`)."""

    @property
    def last_applied(self) -> int:
        """The index it stands at."""

    @property
    def view(self) -> View:
        """The state itself."""

    def close(self) -> None:
        """Give the view back."""


class SnapshotHost(Protocol):
    """The part of a MachineHost that is used here."""

    @property
    def last_applied(self) -> int:
        """Of the entries so far."""

    async def snapshot(self) -> FrozenState:
        """Freeze the state."""


async def backup(host: SnapshotHost, identity: Identity, clock: Clock) -> AsyncGenerator[Blob, None]:
    """The state as of now in blobs, the digest the last one. Close it if it is left early."""
    source = await host.snapshot()
    try:
        head = BackupHead(
            cluster_id=identity.cluster_id,
            node_id=identity.node_id,
            name=identity.name,
            last_applied=source.last_applied,
            taken=clock.wall(),
            version=version("connect-kv"),
        )
        layout: writer.Layout | None = None
        planning = _paced(writer.plan(buckets(source.view, head, exact=False)), host, clock)
        async with aclosing(planning):
            async for planned in planning:
                layout = planned or layout
        assert layout is not None
        digest, remaining = hashlib.sha256(), layout.size
        pages = _paced(writer.write(layout, buckets(source.view, head, exact=True)), host, clock)
        async with aclosing(pages):
            async for data in _joined(pages):
                digest.update(data)
                remaining -= len(data)
                yield Blob(data, remaining)
        yield Blob(digest.digest(), 0)
    finally:
        source.close()


async def _joined(pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The bytes of those pages, in pieces of BLOB_BYTES; the last one may be shorter."""
    waiting: list[bytes] = []
    size = 0
    async for page in pages:
        waiting.append(page)
        size += len(page)
        if size >= BLOB_BYTES:
            whole = b"".join(waiting)
            rest = len(whole) - len(whole) % BLOB_BYTES
            for at in range(0, rest, BLOB_BYTES):
                yield whole[at : at + BLOB_BYTES]
            waiting, size = [whole[rest:]], len(whole) - rest
    if size:
        yield b"".join(waiting)


async def _paced(work: Generator[T, None, None], host: SnapshotHost, clock: Clock) -> AsyncGenerator[T, None]:
    """What it yields, a little at a time: the loop is for everybody, and puts come first."""
    applied, took, begun = host.last_applied, 0.0, clock.now()
    try:
        for number, item in enumerate(work, 1):
            took += clock.now() - begun
            yield item
            if took >= SLICE_SECONDS or not number % SLICE_PAGES:
                await asyncio.sleep(0)
                if host.last_applied != applied:
                    applied = host.last_applied
                    await clock.sleep(REST_FACTOR * took)
                took = 0.0
            begun = clock.now()  # what others did meanwhile does not count
    finally:
        work.close()
