"""A key/value machine over an engine in memory, driven slice by slice as the host does."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from connect_kv.kv.machine import KvMachine
from connect_kv.kv.moment import Moment
from connect_kv.kv.scan import Walk
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.kv_pb2 import (
    DeleteRangeRequest,
    Event,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse
from connect_kv.storage.engine import Engine
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay

T = TypeVar("T")
SECOND = 1_000_000_000


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a read that never really waits; hypothesis tests have no loop."""
    return asyncio.run(work)


def run(walk: Walk[bytes]) -> Result:
    """Run a command without regard to its pauses."""
    encoded: list[bytes] = []

    def kept() -> Walk[None]:
        encoded.append((yield from walk))

    for _ in kept():
        pass
    return Result.FromString(encoded[0])


class ManualClock:
    def __init__(self) -> None:
        self.time = 1000.0
        self.sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self.time

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.sleepers.append((self.time + seconds, event))
        await event.wait()

    async def advance(self, seconds: float) -> None:
        """In steps of a tenth of a second; whoever wakes runs until it sleeps again."""
        for _ in range(round(seconds * 10)):
            self.time += 0.1
            for item in [item for item in self.sleepers if item[0] <= self.time + 1e-6]:
                self.sleepers.remove(item)
                item[1].set()
            for _ in range(30):
                await asyncio.sleep(0)


class Kv:
    """One member's machine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.machine = KvMachine()
        self.machine.load(engine, Moment())
        self.index = 0
        self.time = 0
        """What was measured, nanoseconds."""

    @property
    def at(self) -> Moment:
        return Moment(elapsed=self.time)

    def apply(self, *commands: Command) -> list[Result]:
        """One slice: every command in an entry of its own."""
        overlay = Overlay(self.engine)
        results = []
        for command in commands:
            self.index += 1
            results.append(run(self.machine.apply(command, self.index, self.at, overlay)))
        self.machine.seal(overlay)
        self.write(overlay)
        return results

    def write(self, overlay: Overlay) -> None:
        self.engine.batch(overlay.changes).write(sync=False)
        self.machine.published()

    def clean(self) -> int:
        """Clean up to the end; returns in how many steps."""
        steps = 0
        while self.machine.cleanup_pending:
            overlay = Overlay(self.engine)
            self.machine.cleanup(overlay)
            self.write(overlay)
            steps += 1
        return steps

    def restart(self, since: int = 0) -> None:
        """Another process on the same database. `since`: when time began to be measured."""
        self.machine.close()
        self.machine = KvMachine()
        self.machine.load(self.engine, self.at._replace(since=since))

    def put(self, key: bytes, value: bytes = b"", **options: Any) -> PutResponse:
        result = self.apply(Command(put=PutRequest(key=key, value=value, **options)))[0]
        assert not result.HasField("failure"), result.failure.message
        return result.put

    def delete(self, key: bytes, range_end: bytes = b"") -> int:
        request = DeleteRangeRequest(key=key, range_end=range_end)
        return self.apply(Command(delete_range=request))[0].delete_range.deleted

    def grant(self, lease: int, ttl: int = 10) -> Result:
        command = Command()
        command.lease_grant.ID = lease
        command.lease_grant.TTL = ttl
        return self.apply(command)[0]

    def compact(self, revision: int) -> Result:
        command = Command()
        command.compact.revision = revision
        return self.apply(command)[0]

    def txn(self, request: TxnRequest) -> Result:
        return self.apply(Command(txn=request))[0]

    async def get(self, key: bytes, range_end: bytes = b"", **options: Any) -> RangeResponse:
        return await self.machine.range(RangeRequest(key=key, range_end=range_end, **options))


def put_op(key: bytes, value: bytes = b"", **options: Any) -> RequestOp:
    return RequestOp(request_put=PutRequest(key=key, value=value, **options))


def delete_op(key: bytes, range_end: bytes = b"", **options: Any) -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key=key, range_end=range_end, **options))


def range_op(key: bytes, range_end: bytes = b"", **options: Any) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key=key, range_end=range_end, **options))


def txn_op(**fields: Any) -> RequestOp:
    return RequestOp(request_txn=TxnRequest(**fields))


def new_engine() -> Engine:
    return MemoryDisk(random.Random(1)).open(Path("state"))


@pytest.fixture
def kv() -> Iterator[Kv]:
    kv = Kv(new_engine())
    yield kv
    kv.machine.close()
    kv.engine.close()


END = 1 << 40
"""The id of a watch that is created and cancelled, to mark where the responses so far end."""


class Client:
    """A stream of watches and what came out of it."""

    def __init__(self, kv: Kv) -> None:
        self.kv = kv
        self.stream = WatchStream(kv.machine.hub)

    def create(self, key: bytes = b"\0", range_end: bytes = b"\0", **options: object) -> None:
        create = WatchCreateRequest(key=key, range_end=range_end, **options)  # type: ignore[arg-type]
        self.stream.handle(WatchRequest(create_request=create))

    async def responses(self) -> list[WatchResponse]:
        """Everything there is to say now."""
        seen: list[WatchResponse] = []
        while self.stream.backlog:
            self.stream.create(WatchCreateRequest(key=b"?", watch_id=END))
            self.stream.cancel(WatchCancelRequest(watch_id=END))
            async for response in self.stream:
                if response.watch_id != END:
                    seen.append(response)
                elif response.canceled:
                    break
        return seen

    async def events(self, watch_id: int = 0) -> list[tuple[int, bytes, bytes | None]]:
        """(revision, key, value) in the order of arrival; None for a deletion."""
        return [
            (event.kv.mod_revision, event.kv.key, None if event.type == Event.DELETE else event.kv.value)
            for response in await self.responses()
            if response.watch_id == watch_id
            for event in response.events
        ]


@pytest.fixture
def client(kv: Kv) -> Client:
    return Client(kv)
