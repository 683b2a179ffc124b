"""A dumped state fills a new database exactly, or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from connect_kv.errors import CorruptStorage
from connect_kv.raft.types import EntryId, SnapshotMeta
from connect_kv.storage import codec, transfer
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.state_dirs import StateDatabase, StateDirs
from tests.storage.helpers import make_disk, voters

T = TypeVar("T")
META = SnapshotMeta(EntryId(2, 30), voters(1))


class Inline:
    async def run(self, call: Callable[[], T]) -> T:
        return call()

    async def close(self) -> None:
        pass


@pytest.fixture(params=["leveldb", "memory"])
def dirs(request: pytest.FixtureRequest, tmp_path: Path) -> StateDirs:
    return StateDirs(make_disk(request.param), tmp_path)


def source(dirs: StateDirs, size: int = 3000) -> StateDatabase:
    rng = random.Random(5)
    database = dirs.create("1")
    changes: dict[bytes, bytes | None] = {
        b"\x10" + rng.randbytes(8): rng.randbytes(rng.randint(0, 1000)) for _ in range(size)
    }
    database.prepare(changes | {b"\x00log_time": b"now", b"\x13": b"", b"\xff\xff": b"end"}, 30).write(
        sync=False
    )
    return database


def own(key: bytes) -> bool:
    return key.startswith((codec.STATE_APPLIED, codec.STATE_FLOOR, codec.STATE_LINK))


async def chunks_of(database: StateDatabase, chunk_bytes: int = 1 << 20) -> list[bytes]:
    view = database.engine.view()
    try:
        return [chunk async for chunk in transfer.dump(view, chunk_bytes=chunk_bytes)]
    finally:
        view.close()


async def stream(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_a_filled_database_is_the_dumped_one(dirs: StateDirs) -> None:
    database = source(dirs)
    chunks = await chunks_of(database, 100_000)
    assert len(chunks) > 10
    assert all(len(chunk) <= 100_000 + 1100 for chunk in chunks)
    copy = dirs.create("2")
    await transfer.fill(copy, META, stream(chunks), Inline())
    expected = [pair for pair in database.engine.iterate(b"", None) if not own(pair[0])]
    assert [pair for pair in copy.engine.iterate(b"", None) if not own(pair[0])] == expected
    copy.prepare({b"\x10": b"next"}, 31).write(sync=False)
    copy.close()
    copy = dirs.open("2", 30)
    assert copy.last_applied == 31
    copy.close()
    database.close()


async def test_writes_after_the_view_do_not_show(dirs: StateDirs) -> None:
    database = source(dirs, 100)
    view = database.engine.view()
    database.prepare({b"\x10later": b"1"}, 31).write(sync=False)
    copy = dirs.create("2")
    await transfer.fill(copy, META, transfer.dump(view), Inline())
    view.close()
    assert (copy.last_applied, copy.engine.get(b"\x10later")) == (30, None)
    copy.close()
    database.close()


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda chunks: chunks[:-1], "ends early"),
        (lambda chunks: chunks[1:], "not whole"),
        (lambda chunks: [chunks[1], chunks[0], *chunks[2:]], "not whole"),
        (lambda chunks: [chunks[0], chunks[0][:-1], *chunks[2:]], "within a record"),
        (lambda chunks: [chunks[0] + b"\0\0\0", *chunks[1:]], "within a record"),
        (lambda chunks: [chunks[0][:-1] + b"?", *chunks[1:]], "not whole"),
        (lambda chunks: [*chunks, chunks[0]], "none of a snapshot"),
        (lambda chunks: [b"?" + chunks[0], *chunks], "none of a snapshot"),
        (lambda chunks: [*chunks[:-1], chunks[-1][:-1]], "ends early"),
    ],
)
async def test_a_stream_that_is_not_whole_is_refused(
    dirs: StateDirs, harm: Callable[[list[bytes]], list[bytes]], what: str
) -> None:
    database = source(dirs, 500)
    chunks = harm(await chunks_of(database, 50_000))
    database.close()
    copy = dirs.create("2")
    with pytest.raises(CorruptStorage, match=what):
        await transfer.fill(copy, META, stream(chunks), Inline())
    assert copy.last_applied == 0
    copy.close()


async def test_a_state_at_another_index_is_refused(dirs: StateDirs) -> None:
    database = source(dirs, 10)
    chunks = await chunks_of(database)
    copy = dirs.create("2")
    with pytest.raises(CorruptStorage, match="stands at 30, not at 31"):
        await transfer.fill(copy, SnapshotMeta(EntryId(2, 31), voters(1)), stream(chunks), Inline())
    copy.close()
    database.close()


async def test_others_on_the_loop_get_their_turn(dirs: StateDirs) -> None:
    database = source(dirs, 20_000)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await chunks_of(database)
    assert turns >= 20_000 // transfer.SLICE_PAIRS
    task.cancel()
    database.close()


async def test_what_says_nothing_of_where_it_stands_is_not_dumped() -> None:
    engine = MemoryDisk(random.Random(1)).open(Path("/db"))
    with pytest.raises(ValueError, match="not a state database"):
        await anext(transfer.dump(engine))


@pytest.mark.parametrize(("pairs", "size"), [(1, 1 << 20), (2, 1 << 20), (7, 1 << 20), (5_000, 10)])
async def test_a_chunk_is_stored_in_slices(
    pairs: int, size: int, dirs: StateDirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLICE_PAIRS", pairs)
    monkeypatch.setattr(transfer, "SLICE_BYTES", size)
    await test_a_filled_database_is_the_dumped_one(dirs)
