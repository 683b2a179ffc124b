"""The history of keys, from a file of etcd's into a new state database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from connect_kv.etcd_files import records
from connect_kv.etcd_files.reader import BoltFile
from connect_kv.interfaces import Worker
from connect_kv.kv.filling import HistoryFill
from connect_kv.kv.scan import T, Walk
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.state_dirs import StateDatabase

BATCH_BYTES = 2 << 20
_PROGRESS_PAIRS = 4096


async def fill_history(
    file: BoltFile, database: StateDatabase, worker: Worker, progress: Callable[[int], None]
) -> int:
    """Put it there with what follows from it; returns the revision of the last record, 0 without any.

    Not synced. `progress` is told bytes, of those of the file. Attachments to leases which ended may be
    there afterwards (`kv.filling.loose_attachments`). Raises ValueError, DecodeError, CorruptStorage.
    """
    fill, parse = HistoryFill(), KeyValue.FromString
    last = done = 0
    for number, (key, value) in enumerate(file.items(records.KEY), 1):
        main, sub, deleted = records.read_place(key)
        last = main
        done += len(key) + len(value) + 16
        if deleted:
            fill.delete(main, sub, parse(value).key)
        elif value:  # an empty one only stands for its revision: a restore that raised it left it there
            fill.put(main, sub, value)
        if fill.size >= BATCH_BYTES:
            await worker.run(partial(database.engine.batch(fill.take()).write, sync=False))
        if not number % _PROGRESS_PAIRS:
            progress(min(done, file.content_bytes))
    await worker.run(partial(database.engine.batch(fill.take()).write, sync=False))
    return last


def ended(walk: Walk[T]) -> T:
    """Its result, without pauses: nobody else is to run."""
    while True:
        try:
            next(walk)
        except StopIteration as end:
            result: T = end.value
            return result
