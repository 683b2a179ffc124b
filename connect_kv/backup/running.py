"""A backup of this member's state while it goes on: the file's bytes, blob by blob."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing
from dataclasses import asdict
from importlib.metadata import version
from typing import NamedTuple, TypeVar

from connect_kv.backup.etcd_format import buckets
from connect_kv.backup.file import DIGEST_BYTES, BackupHead
from connect_kv.errors import ConnectKvError
from connect_kv.etcd_files import writer
from connect_kv.interfaces import Clock, Identity
from connect_kv.statemachine.database import StateCopy
from connect_kv.statemachine.host import MachineHost

T = TypeVar("T")

ALONE_BYTES = 8 << 20
"""A state with fewer bytes on disk takes less time than a process to start."""
_BUFFER_BYTES = 128 << 10
"""Read ahead of who takes the blobs, twice."""
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


async def backup(host: MachineHost, identity: Identity, clock: Clock) -> AsyncGenerator[Blob, None]:
    """The state as of now in blobs, the digest the last one. Close it if it is left early.

    A process of its own makes it (`export_job`), from a copy of the files; this one a small state, or one
    that is in memory alone.
    """
    copy = await host.copy(ALONE_BYTES)
    parts = _by_this_process(host, identity, clock) if copy is None else _by_another(copy, identity, clock)
    async with aclosing(parts):
        async for blob in parts:
            yield blob


def _head(identity: Identity, last_applied: int, clock: Clock) -> BackupHead:
    return BackupHead(
        cluster_id=identity.cluster_id,
        node_id=identity.node_id,
        name=identity.name,
        last_applied=last_applied,
        taken=clock.wall(),
        version=version("connect-kv"),
    )


async def _by_another(copy: StateCopy, identity: Identity, clock: Clock) -> AsyncGenerator[Blob, None]:
    process = None
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connect_kv.backup.export_job",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_BUFFER_BYTES,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        head = asdict(_head(identity, copy.last_applied, clock))
        process.stdin.write(json.dumps({"directory": str(copy.path), "head": head}).encode() + b"\n")
        if line := await process.stdout.readline():
            remaining = json.loads(line)["size"]
            while remaining:
                data = await process.stdout.readexactly(min(BLOB_BYTES, remaining))
                remaining -= len(data)
                yield Blob(data, remaining)
            yield Blob(await process.stdout.readexactly(DIGEST_BYTES), 0)
            return
        raise asyncio.IncompleteReadError(b"", None)
    except asyncio.IncompleteReadError:
        assert process is not None
        assert process.stderr is not None
        told = (await process.stderr.read()).decode(errors="replace").strip()
        raise ConnectKvError(f"the backup ended early: {told or 'its process was ended'}") from None
    finally:
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await copy.discard()


async def _by_this_process(host: MachineHost, identity: Identity, clock: Clock) -> AsyncGenerator[Blob, None]:
    source = await host.snapshot()
    try:
        head = _head(identity, source.last_applied, clock)
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


async def _paced(work: Generator[T, None, None], host: MachineHost, clock: Clock) -> AsyncGenerator[T, None]:
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
