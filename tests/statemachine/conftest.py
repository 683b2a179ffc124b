"""Helpers of this folder: a host over a pretended disk, its log, and what commands look like."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.framework.types import MessageType, ServiceType, Store
from connect_kv.interfaces import Clock, Worker
from connect_kv.kv.machine import KvMachine
from connect_kv.node.workers import InlineWorker
from connect_kv.raft.types import Entry, EntryId, EntryKind, Membership, SnapshotMeta
from connect_kv.rpc.command_pb2 import Command, CommandBatch, MachineCall, Result, SessionClose, SessionOpen
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.statemachine.callbacks import CallbackMachine
from connect_kv.statemachine.host import HostConfig, MachineHost
from connect_kv.statemachine.hosted import HostedMachine, ReplicatedMachine
from connect_kv.storage.engine import Disk
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.state_dirs import StateDirs

SECOND = 1_000_000_000
ROOT = Path("/data")


class StillClock:
    """Time stands still: a slice is never too long."""

    def now(self) -> float:
        return 0.0

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Counter(Replicated):
    def __init__(self) -> None:
        self.total = 0
        self.history: list[tuple[int, int]] = []

    @command
    def add(self, by: int = 1) -> int:
        if by == 13:
            raise ValueError("unlucky")
        self.total += by
        self.history.append((self.log_time, by))
        return self.total

    @query
    def value(self) -> int:
        return self.total


class Names(Replicated):
    def __init__(self) -> None:
        self.names: set[str] = set()

    @command
    def add(self, name: str) -> bool:
        new = name not in self.names
        self.names.add(name)
        return new


def persistent_counter() -> CallbackMachine:
    """Counts messages, in its store."""

    def on_write(message: bytes, store: Store) -> bytes:
        if message == b"raise":
            store.put(b"raised", b"yes")
            raise ValueError("raised")
        total = int(store.get(b"total") or b"0") + 1
        store.put(b"total", b"%d" % total)
        return b"%d" % total

    def on_read(message: bytes, store: Store) -> bytes:
        if message == b"cheat":
            store.put(b"total", b"100")
        return b" ".join(key + b"=" + value for key, value in store.iterate())

    def incoming(message: bytes) -> MessageType:
        return MessageType.READ

    return CallbackMachine(incoming, on_read, on_write, ServiceType.PERSISTENT)


def put(key: bytes, value: bytes, **session: int) -> Command:
    return Command(put=PutRequest(key=key, value=value), **session)  # type: ignore[arg-type]


def call(machine: str, method: str, arguments: Mapping[str, object], **session: int) -> Command:
    packed = msgspec.msgpack.encode(arguments)
    return Command(
        machine_call=MachineCall(machine=machine, method=method, arguments=packed),
        **session,  # type: ignore[arg-type]
    )


def add(by: int = 1, **session: int) -> Command:
    return call("counter", "add", {"by": by}, **session)


def open_session(ttl: int = 0) -> Command:
    return Command(session_open=SessionOpen(ttl=ttl))


def close_session(session: int, number: int) -> Command:
    return Command(session=session, number=number, session_close=SessionClose())


def number_in(result: Result) -> int:
    """The number a machine returned."""
    assert result.WhichOneof("result") == "machine_call", result
    return msgspec.msgpack.decode(result.machine_call.value, type=int)


class Member:
    """One member without Raft: a log, a disk, and the host that is opened over it."""

    def __init__(
        self,
        machines: Mapping[str, type[Replicated]] | None = None,
        *,
        config: HostConfig | None = None,
        persistent: bool = False,
        disk: Disk | None = None,
        root: Path = ROOT,
        workers: tuple[Worker, Worker] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or StillClock()
        self._classes = {"counter": Counter} if machines is None else machines
        self._persistent = persistent
        self._config = config
        self._workers = workers or (InlineWorker(), InlineWorker())
        self.disk = disk or MemoryDisk(random.Random(1))
        self.dirs = StateDirs(self.disk, root)
        self.log: list[Entry] = []
        self.log_starts = 1
        self.name = "1"
        self.durable = 0
        self.host: MachineHost
        self.kv: KvMachine
        self.objects: dict[str, Replicated] = {}
        self.dirs.create(self.name).close()

    async def start(self, *, others: Mapping[str, HostedMachine] | None = None) -> Member:
        """Open the host, as a process that starts does."""
        self.objects = {name: one() for name, one in self._classes.items()}
        machines: dict[str, HostedMachine] = {
            name: ReplicatedMachine(one) for name, one in self.objects.items()
        }
        if self._persistent:
            machines["persistent"] = persistent_counter()
        self.kv = KvMachine()
        database = self.dirs.open(self.name, self.durable)
        try:
            self.host = MachineHost(
                dirs=self.dirs,
                state_name=self.name,
                database=database,
                kv=self.kv,
                machines=machines | dict(others or {}),
                state_worker=self._workers[0],
                apply_worker=self._workers[1],
                clock=self._clock,
                config=self._config,
            )
            await self.host.start(self._read, self.log_starts)
        except BaseException:
            database.close()
            raise
        return self

    async def _read(self, start: int, end: int) -> Sequence[Entry]:
        assert start >= self.log_starts, "that entry is compacted away"
        return self.log[start - 1 : min(end, start + 3) - 1]

    async def restart(self, **others: HostedMachine) -> None:
        """End in order, and start again."""
        await self.host.close()
        await self.start(others=others)

    async def crash(self, **others: HostedMachine) -> None:
        """End without a word. What was written stays (no power is lost), what was in memory is gone."""
        self.host._closed = True
        self.kv.close()
        self.host._writer.database.close()
        await self.start(others=others)

    def append(self, *commands: Command, log_time: int = 0, elapsed: int = 0) -> Entry:
        """An entry of the log, not applied."""
        data = CommandBatch(commands=commands, log_time=log_time, elapsed=elapsed).SerializeToString()
        entry = Entry(EntryId(1, len(self.log) + 1), EntryKind.COMMAND, data)
        self.log.append(entry)
        return entry

    async def run(self, *commands: Command, log_time: int = 0, elapsed: int = 0) -> list[Result]:
        """Append and apply one entry."""
        (results,) = await self.host.apply([self.append(*commands, log_time=log_time, elapsed=elapsed)])
        return [Result.FromString(result) for result in results]

    async def apply_rest(self, end: int | None = None) -> list[Sequence[Result]]:
        """Apply what is in the log and not applied, up to `end`, as one slice."""
        entries = self.log[self.host.last_applied : end]
        rows = await self.host.apply(entries) if entries else []
        return [[Result.FromString(result) for result in row] for row in rows]

    async def settled(self) -> None:
        """Machines that can go on again do."""
        await asyncio.gather(*self.host._rebuilding)

    async def open_session(self, ttl: int = 0, log_time: int = 0, elapsed: int = 0) -> int:
        (result,) = await self.run(open_session(ttl), log_time=log_time, elapsed=elapsed)
        return result.session_open.session

    async def make_durable(self) -> int:
        self.durable = await self.host.make_durable()
        self.log_starts = self.durable + 1
        return self.durable

    def state(self) -> dict[str, object]:
        """Everything replicated, in a form that can be compared between members."""
        keys = dict(self.host._writer.database.engine.iterate(b"\x10", b"\x20"))
        keys |= dict(self.host._writer.database.engine.iterate(b"\x29", b"\x40"))
        sessions = {
            id: (one.ttl, one.used_at, one.used_index, one.floor, sorted(one.replies))
            for id, one in self.host.sessions._sessions.items()
        }
        machines = {name: vars(one) for name, one in self.objects.items()}
        return {
            "keys": keys,
            "sessions": sessions,
            "machines": machines,
            "log_time": self.host.log_time,
            "revision": self.kv.revision,
            "last_applied": self.host.last_applied,
        }


async def copy_snapshot(source: Member, target: Member) -> None:
    """Install a snapshot of one member at another."""
    snapshot = await source.host.snapshot()
    meta = SnapshotMeta(EntryId(1, snapshot.last_applied), Membership())

    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in snapshot.chunks():
            yield chunk

    name = await target.host.stage(meta, chunks())
    snapshot.close()
    target.name = name
    await target.host.switch(name)
    target.log = source.log[: snapshot.last_applied]
    target.durable, target.log_starts = snapshot.last_applied, snapshot.last_applied + 1
