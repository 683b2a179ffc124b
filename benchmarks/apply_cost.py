"""What it costs to apply puts, by how many keys there are: the state machine alone, without wire or log.

``python -m benchmarks.apply_cost --keys 10000 100000 1000000``: microseconds of processor time for each key
that is put, with LevelDB's own thread, and without. The state is filled in transactions of 128 puts of new
keys (*fill*); then come single puts of random keys, 100 an entry and four entries a slice (*put*), and
transactions of 128 random keys (*txn*). Values have 256 bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import uvloop

from connect_kv.kv.machine import KvMachine
from connect_kv.node.clock import SystemClock
from connect_kv.node.workers import InlineWorker
from connect_kv.raft.types import Entry, EntryId, EntryKind
from connect_kv.rpc.command_pb2 import Command, CommandBatch
from connect_kv.rpc.kv_pb2 import PutRequest, RequestOp, TxnRequest
from connect_kv.statemachine.host import MachineHost
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.state_dirs import StateDirs

T = TypeVar("T")

VALUE = bytes(random.Random(1).randbytes(256))
IN_TXN = 128
IN_ENTRY = 100
IN_SLICE = 4
QUIET_SECONDS = 0.005
"""Of processor time in half a second: nothing is merged any more."""


class Machine:
    """The state machine of one member over a real database."""

    def __init__(self, directory: Path) -> None:
        dirs = StateDirs(LevelDbDisk(), directory)
        worker = InlineWorker()
        self.kv = KvMachine()
        self._host = MachineHost(
            dirs=dirs, state_name="1", database=dirs.create_first("1"), kv=self.kv, machines={},
            state_worker=worker, apply_worker=worker, clock=SystemClock(),
        )  # fmt: skip
        self._index = 0

    async def __aenter__(self) -> Machine:
        await self._host.start(_nothing)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._host.close()

    async def apply(self, payloads: Sequence[bytes]) -> None:
        """As one slice."""
        entries = []
        for payload in payloads:
            self._index += 1
            entries.append(Entry(EntryId(1, self._index), EntryKind.COMMAND, payload))
        await self._host.apply(entries)


async def _nothing(start: int, end: int) -> Sequence[Entry]:
    """There is no log."""
    return ()


def key(number: int) -> bytes:
    """Of 20 bytes, as those of the other benchmarks."""
    return b"bench/%014d" % number


def transaction(keys: Iterable[bytes]) -> bytes:
    """An entry."""
    operations = [RequestOp(request_put=PutRequest(key=key, value=VALUE)) for key in keys]
    return CommandBatch(commands=[Command(txn=TxnRequest(success=operations))]).SerializeToString()


def puts(keys: Iterable[bytes]) -> bytes:
    """An entry."""
    return CommandBatch(
        commands=[Command(put=PutRequest(key=key, value=VALUE)) for key in keys]
    ).SerializeToString()


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many at a time."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


class Meter:
    """Processor time of what is applied through it, and of LevelDB's own thread until `note`."""

    def __init__(self) -> None:
        self._loop = 0.0
        self._beside = _beside()

    async def run(self, machine: Machine, payloads: Sequence[bytes]) -> None:
        """Apply a slice."""
        began = time.thread_time()
        await machine.apply(payloads)
        self._loop += time.thread_time() - began

    async def note(self, name: str, keys: int, count: int) -> None:
        """Wait until all of it is merged, and print what it came to, for each of so many."""
        while True:
            before = _beside()
            await asyncio.sleep(0.5)
            if _beside() - before < QUIET_SECONDS:
                break
        loop, whole = self._loop / count * 1e6, (self._loop + _beside() - self._beside) / count * 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told = f"{whole:6.2f} us, {loop:6.2f} without LevelDB's thread; peak {peak:.0f} MiB"
        print(f"{name:5} {keys:>10,} keys: {told}", flush=True)


def _beside() -> float:
    """Seconds that all other threads have run."""
    return time.process_time() - time.thread_time()


async def measure(sizes: Sequence[int], count: int) -> None:
    """One machine that grows."""
    rng = random.Random(2)
    with tempfile.TemporaryDirectory() as directory:
        async with Machine(Path(directory)) as machine:
            present = 0
            for size in sizes:
                if size > present:
                    fill = (transaction(map(key, part)) for part in parts(range(present, size), IN_TXN))
                    await run(machine, "fill", size, fill, size - present)
                present = size
                for name, encode, together in (("put", puts, IN_ENTRY), ("txn", transaction, IN_TXN)):
                    picked = parts((key(rng.randrange(size)) for _ in range(count)), together)
                    entries = (encode(dict.fromkeys(part)) for part in picked)
                    await run(machine, name, size, entries, count)


async def run(machine: Machine, name: str, size: int, entries: Iterable[bytes], count: int) -> None:
    """Apply these, which put so many keys."""
    meter = Meter()
    for payloads in parts(entries, IN_SLICE):
        await meter.run(machine, payloads)
    await meter.note(name, size, count)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--count", type=int, default=100_000, help="of puts, alone and in transactions")
    arguments = parser.parse_args()
    uvloop.run(measure(sorted(arguments.keys), arguments.count))


if __name__ == "__main__":
    main()
