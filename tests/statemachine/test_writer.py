"""Large batches are prepared in pieces, and are one batch all the same."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

from connect_kv.node.workers import InlineWorker
from connect_kv.statemachine.database import PIECE, BatchWriter
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.state_dirs import StateDirs

PIECES = 5


def many() -> dict[bytes, bytes | None]:
    return {b"\x10%06d" % number: b"v" for number in range(PIECES * PIECE)}


async def test_others_run_between_the_pieces_and_see_nothing_of_it_before_its_end() -> None:
    dirs = StateDirs(MemoryDisk(random.Random(1)), Path("/data"))
    database = dirs.create("1")
    writing = asyncio.create_task(BatchWriter(database, InlineWorker()).write(many(), 7))
    turns = 0
    while not writing.done():
        seen = database.engine.get(b"\x10000000")
        await asyncio.sleep(0)
        turns += not writing.done()
        assert seen is None or writing.done()
    assert turns >= PIECES
    assert database.engine.get(b"\x10%06d" % (PIECES * PIECE - 1)) == b"v"
    database.close()
    assert dirs.open("1", 7).last_applied == 7


async def test_one_that_is_given_up_leaves_no_gap_in_the_chain() -> None:
    dirs = StateDirs(MemoryDisk(random.Random(1)), Path("/data"))
    database = dirs.create("1")
    writer = BatchWriter(database, InlineWorker())
    await writer.write({b"\x10first": b"1"}, 1)
    writing = asyncio.create_task(writer.write(many(), 2))
    for _ in range(3):
        await asyncio.sleep(0)
    writing.cancel()
    with suppress(asyncio.CancelledError):
        await writing
    await writer.write({b"\x10last": b"3"}, 3)
    database.close()
    again = dirs.open("1", 0)
    assert again.last_applied == 3
    assert [key for key, _ in again.engine.iterate(b"\x10", b"\x11")] == [b"\x10first", b"\x10last"]
