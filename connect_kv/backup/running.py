"""A backup of this member's state while it goes on: the file's bytes, blob by blob."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from importlib.metadata import version
from typing import NamedTuple

from connect_kv.backup.file import BackupHead, BackupWriter
from connect_kv.interfaces import Identity
from connect_kv.statemachine.host import MachineHost

BLOB_BYTES = 128 << 10


class Blob(NamedTuple):
    """A part of the file."""

    data: bytes
    remaining: int
    """Bytes still to come, the digest not counted: an estimate from the size on disk, 0 only at the end."""


async def backup(host: MachineHost, identity: Identity, taken: int) -> AsyncGenerator[Blob, None]:
    """The state as of now in blobs, the digest the last one. Close it if it is left early.

    `taken` is the time, nanoseconds since 1970.
    """
    source = await host.snapshot()
    pieces = source.chunks()
    try:
        writer = BackupWriter(
            BackupHead(
                cluster_id=identity.cluster_id,
                node_id=identity.node_id,
                name=identity.name,
                last_applied=source.last_applied,
                taken=taken,
                version=version("connect-kv"),
            )
        )
        remaining = max(source.approximate_bytes, 1)
        async for part in _parts(writer, pieces):
            for at in range(0, len(part), BLOB_BYTES):
                blob = part[at : at + BLOB_BYTES]
                remaining = max(1, remaining - len(blob))
                yield Blob(blob, remaining)
        yield Blob(writer.digest(), 0)
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
        source.close()


async def _parts(writer: BackupWriter, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield writer.start()
    async for piece in pieces:
        yield writer.piece(piece)
    yield writer.end()
