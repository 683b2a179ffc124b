"""A whole state database as a stream of chunks, and a new one from such a stream.

The stream is every key and value of a frozen view in key order, except the records that speak of the
database itself (its chain and format). It ends with a count and a checksum of all that was in it, and
with the index it stands at. Work on the loop comes in slices of at most about 2 ms.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import chain

from connect_kv.errors import CorruptStorage
from connect_kv.interfaces import Worker
from connect_kv.raft.types import SnapshotMeta
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader
from connect_kv.storage.state_dirs import StateDatabase

CHUNK_BYTES = 1 << 20
SLICE_PAIRS = 512
SLICE_BYTES = 256 << 10

_PAIRS, _END = b"P", b"E"
_LENGTHS = struct.Struct(">II")
_SUMMARY = struct.Struct(">QQIQQ")
"""pairs, bytes of them, CRC-32 of them, last_applied, format version"""
_OWN = frozenset({codec.STATE_FORMAT, codec.STATE_APPLIED, codec.STATE_FLOOR})


async def dump(view: Reader, *, chunk_bytes: int = CHUNK_BYTES) -> AsyncIterator[bytes]:
    """The state in `view` in chunks of at most `chunk_bytes` plus one record.

    Close the generator before the view. Raises CorruptStorage at a damaged block.
    """
    applied = view.get(codec.STATE_APPLIED)
    if applied is None:
        raise ValueError("not a state database: it does not say what was applied")
    count, total, checksum = 0, 0, 0
    for data, pairs in _packed(view, chunk_bytes):
        if data:
            count, total, checksum = count + pairs, total + len(data), zlib.crc32(data, checksum)
            yield _PAIRS + data
        await asyncio.sleep(0)
    summary = (count, total, checksum, codec.decode_pair(applied)[0], codec.FORMAT_VERSION)
    yield _END + _SUMMARY.pack(*summary)


async def fill(
    database: StateDatabase, meta: SnapshotMeta, chunks: AsyncIterator[bytes], worker: Worker
) -> None:
    """Put a dumped state into a new, empty database and force it to disk.

    Blocking calls go to `worker`. Raises CorruptStorage if the stream is not whole, or stands at
    another index than `meta.last`; the database is of no use then: delete it.
    """
    count, total, checksum = 0, 0, 0
    summary: tuple[int, ...] | None = None
    async for chunk in chunks:
        kind, data = chunk[:1], chunk[1:]
        if summary is not None or kind not in (_PAIRS, _END):
            raise _bad(database, "a chunk is none of a snapshot")
        if kind == _END:
            summary = _SUMMARY.unpack(data) if len(data) == _SUMMARY.size else ()
            continue
        for changes in _slices(str(database.engine.path), data):
            batch = database.engine.batch(changes)
            count += len(changes)
            await worker.run(partial(batch.write, sync=False))
        total, checksum = total + len(data), zlib.crc32(data, checksum)
    _check(database, meta, summary, (count, total, checksum))
    await worker.run(lambda: _finish(database, meta))


def pairs_of(chunk: bytes, name: str = "snapshot") -> Iterator[tuple[bytes, bytes]]:
    """What a chunk holds: pairs, or none in the last one. Raises CorruptStorage naming `name`."""
    if chunk[:1] == _PAIRS:
        for changes in _slices(name, chunk[1:]):
            for key, value in changes.items():
                yield key, value or b""


def _packed(view: Reader, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Chunks (data, pairs in it); in between, once a slice, an empty one: a chance to pause."""
    parts: list[bytes] = []
    pairs, size, slice_end, pack = 0, 0, SLICE_BYTES, _LENGTHS.pack
    for key, value in chain(meta_records(view), view.iterate(b"\x01", None)):
        parts += (pack(len(key), len(value)), key, value)
        pairs += 1
        size += 8 + len(key) + len(value)
        if size >= chunk_bytes:
            yield b"".join(parts), pairs
            parts, pairs, size, slice_end = [], 0, 0, SLICE_BYTES
        elif not pairs % SLICE_PAIRS or size >= slice_end:
            slice_end = size + SLICE_BYTES
            yield b"", 0
    yield b"".join(parts), pairs


def meta_records(view: Reader) -> Iterator[tuple[bytes, bytes]]:
    """The records of space 0 that are part of the state: not those that speak of the database itself."""
    for key, value in view.iterate(b"", b"\x01"):
        if key not in _OWN and not key.startswith(codec.STATE_LINK):
            yield key, value


def _slices(name: str, data: bytes) -> Iterator[dict[bytes, bytes | None]]:
    """The pairs of a chunk, so many at a time as may be prepared without a pause."""
    at, end, unpack = 0, len(data), _LENGTHS.unpack_from
    changes: dict[bytes, bytes | None] = {}
    slice_start = 0
    while at < end:
        if at + 8 > end:
            raise CorruptStorage(name, "a chunk ends within a record")
        key_length, value_length = unpack(data, at)
        value_at = at + 8 + key_length
        at = value_at + value_length
        if at > end:
            raise CorruptStorage(name, "a chunk ends within a record")
        changes[data[value_at - key_length : value_at]] = data[value_at:at]
        if len(changes) >= SLICE_PAIRS or at - slice_start >= SLICE_BYTES:
            yield changes
            changes, slice_start = {}, at
    if changes:
        yield changes


def _check(
    database: StateDatabase, meta: SnapshotMeta, summary: tuple[int, ...] | None, seen: tuple[int, int, int]
) -> None:
    if not summary:
        raise _bad(database, "the snapshot ends early")
    *expected, last_applied, version = summary
    if version > codec.FORMAT_VERSION:
        raise _bad(database, f"the snapshot has format version {version}: upgrade this member")
    if tuple(expected) != seen:
        raise _bad(database, f"the snapshot is not whole: (pairs, bytes, checksum) {seen}, not {expected}")
    if last_applied != meta.last.index:
        raise _bad(database, f"the snapshot stands at {last_applied}, not at {meta.last.index}")


def _finish(database: StateDatabase, meta: SnapshotMeta) -> None:
    database.adopt(meta.last.index)
    database.engine.sync()


def _bad(database: StateDatabase, reason: str) -> CorruptStorage:
    return CorruptStorage(str(database.engine.path), reason)
