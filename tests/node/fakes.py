"""A replicated state that is a list of numbers, and a worker that can be blocked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from connect_kv.errors import CorruptStorage, NodeStopped
from connect_kv.raft.types import Entry, EntryKind, SnapshotMeta
from connect_kv.rpc.command_pb2 import Command, CommandBatch

T = TypeVar("T")


class Stored(NamedTuple):
    """A state database that is on disk."""

    last_applied: int = 0
    numbers: Sequence[int] = ()
    log_times: Sequence[int] = ()
    stamps: Sequence[int] = ()


Vault = dict[str, Stored]
"""Those of one node, by name."""


def payload(*numbers: int) -> bytes:
    """A proposal of one command for each number."""
    return CommandBatch(commands=[Command(number=number) for number in numbers]).SerializeToString()


class Tally:
    """Each command adds its number to a list; its result is the list's length then."""

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault = vault
        self._name = name
        self._load(vault.get(name, Stored()))
        self.understood = True
        self.slices: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail_with: Exception | None = None
        self.stage_fails_with: Exception | None = None
        self.closed = False

    def _load(self, stored: Stored) -> None:
        self.last_applied = stored.last_applied
        self.numbers = list(stored.numbers)
        self.log_times = list(stored.log_times)
        """What each entry applied said,"""
        self.stamps = list(stored.stamps)
        """of both times."""

    def elapsed(self, members: Iterable[int]) -> int | None:
        return max(self.stamps, default=0) if self.understood else None

    async def apply(self, entries: Sequence[Entry]) -> list[Sequence[int]]:
        await self.gate.wait()
        if self.fail_with is not None:
            raise self.fail_with
        assert entries[0].index == self.last_applied + 1
        results: list[Sequence[int]] = []
        for entry in entries:
            results.append(self._apply(entry) if entry.kind is EntryKind.COMMAND else [])
        self.last_applied = entries[-1].index
        self.slices.append(len(entries))
        return results

    def _apply(self, entry: Entry) -> list[int]:
        batch = CommandBatch.FromString(entry.data)
        self.log_times.append(batch.log_time)
        self.stamps.append(batch.elapsed)
        results = []
        for command in batch.commands:
            self.numbers.append(command.number)
            results.append(len(self.numbers))
        return results

    async def make_durable(self) -> int:
        self._vault[self._name] = Stored(
            self.last_applied, list(self.numbers), list(self.log_times), list(self.stamps)
        )
        return self.last_applied

    async def snapshot(self) -> "TallySource":
        return TallySource(self.last_applied, json.dumps(self.numbers).encode())

    async def stage(self, meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        data = b"".join([chunk async for chunk in chunks])
        if self.stage_fails_with is not None:
            error, self.stage_fails_with = self.stage_fails_with, None
            raise error
        try:
            numbers = json.loads(data)
        except ValueError as error:
            raise CorruptStorage("state", str(error)) from error
        name = f"{int(self._name) + 1}"
        self._vault[name] = Stored(meta.last.index, numbers)
        return name

    async def switch(self, state_name: str) -> None:
        self._vault.pop(self._name, None)
        self._name = state_name
        self._load(self._vault[state_name])

    async def close(self) -> None:
        self.closed = True


class TallySource:
    """A frozen Tally. Set `gate` to hold the stream up."""

    gate: asyncio.Event | None = None

    def __init__(self, last_applied: int, data: bytes) -> None:
        self.last_applied = last_applied
        self._data = data

    @property
    def approximate_bytes(self) -> int:
        return len(self._data)

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), 64):
            if self.gate is not None:
                await self.gate.wait()
            yield self._data[start : start + 64]

    def close(self) -> None:
        pass


class GatedWorker:
    """Runs calls in order on the loop, unless it is blocked: then they wait, as on a sick disk."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()
        self._gate.set()
        self._reached = asyncio.Event()
        self._turn = asyncio.Lock()
        self._closed = False
        self.calls = 0

    def block(self) -> None:
        self._gate.clear()
        self._reached.clear()

    async def reached(self) -> None:
        """Until a call waits, since it was blocked."""
        await self._reached.wait()

    def unblock(self) -> None:
        self._gate.set()

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return self._turn.locked()

    async def run(self, call: Callable[[], T]) -> T:
        if self._closed:
            raise NodeStopped("the worker has ended")
        async with self._turn:
            # A write takes a moment, in which others may run.
            await asyncio.sleep(0.001)
            if not self._gate.is_set():
                self._reached.set()
            await self._gate.wait()
            self.calls += 1
            return call()

    async def close(self) -> None:
        async with self._turn:
            self._closed = True
