"""Follows single requests through one member and counts the files and functions they pass: a reader's walk.

What a member does by itself meanwhile (ticks, timers) is traced in between, and left out where it does not
occur more often with each request than without any.

Of what is entered, much is only asked in passing ("is a round of heartbeats due?"). *Handed on* are the files
of which some function is given, or gives back, the request itself: its key, the log entry that it became, or
the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import grpc
from google.protobuf.message import Message

import connect_kv
from connect_kv import Replicated, command
from connect_kv.client.client import Client
from connect_kv.config import ServerConfig
from connect_kv.raft.types import Entry, EntryId
from connect_kv.rpc import kv_pb2, machine_pb2, maintenance_pb2, watch_pb2
from connect_kv.server.composition import KvServer
from connect_kv.server.machines import hosted

PACKAGE = Path(connect_kv.__file__).parent
NOT_BELOW = ("rpc/", "client/", "frontend/", "http2/", "errors.py", "metrics.py")
"""Generated code, the client's side, and what stands in front of the services."""
ROUNDS = 5
"""So often each request is followed: what is not met every time is no part of its way."""
QUIET_SECONDS = 0.3

DEEP = 5
"""So many containers and dataclasses within each other are looked into for a request."""
MARK = b"followed-key"
"""In every request whose way is followed."""
LONGEST_ANSWER = 256
"""Bytes."""

Steps = Counter[tuple[str, str]]
"""How often each function of each file was entered, a coroutine at each time it goes on."""


class Carried:
    """Knows the request that is followed: by its bytes, and by the id of the entry that it became."""

    def __init__(self) -> None:
        self.entries: set[EntryId] = set()
        self.texts: list[bytes] = []

    def by(self, value: object, depth: int = DEEP) -> bool:
        """Whether it is the request, or holds it; only what is data is looked into."""
        if isinstance(value, bytes | bytearray | memoryview):
            if 0 < len(value) <= LONGEST_ANSWER:
                self.texts.append(bytes(value))
            return MARK in bytes(value)
        if isinstance(value, EntryId):
            return value in self.entries
        if isinstance(value, str):
            return MARK.decode() in value
        if isinstance(value, Message):
            return MARK in value.SerializeToString()
        if not depth or isinstance(value, type):
            return False
        if isinstance(value, list | tuple | set | frozenset | deque):
            parts: Iterable[object] = list(value)
        elif isinstance(value, dict):
            parts = [*value.keys(), *value.values()]
        elif dataclasses.is_dataclass(value):
            parts = [getattr(value, field.name, None) for field in dataclasses.fields(value)]
        else:
            return False
        found = any([self.by(part, depth - 1) for part in parts])
        if found and isinstance(value, Entry):
            self.entries.add(value.id)
        return found


class Tracer:
    """Counts calls within the package, on every thread begun after it."""

    def __init__(self) -> None:
        self.steps: Steps = Counter()
        self.order: dict[str, None] = {}
        self.carried = Carried()
        self.handed_on: set[str] = set()
        """Files that were given the request."""
        self.told: dict[bytes, set[str]] = {}
        """Files that were given, or gave back, each short text: one of them is the answer."""
        self.on = False

    def install(self) -> None:
        """From now on, until the process ends."""
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def _event(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "return") or not self.on:
            return
        file = frame.f_code.co_filename
        if not file.startswith(str(PACKAGE)):
            return
        file = file[len(str(PACKAGE)) + 1 :]
        if event == "call":
            self.steps[file, frame.f_code.co_qualname] += 1
            self.order.setdefault(file)
            return
        held = [argument, *(value for name, value in frame.f_locals.items() if name != "self")]
        if self.carried.by(held):
            self.handed_on.add(file)
        for value in self.carried.texts:
            self.told.setdefault(value, set()).add(file)
        self.carried.texts.clear()

    async def during(self, work: Callable[[], Awaitable[object]]) -> Steps:
        """What is entered while it runs, and shortly after."""
        self.steps, self.order, self.on = Counter(), {}, True
        answer = await work()
        await asyncio.sleep(QUIET_SECONDS)
        self.on = False
        if isinstance(answer, bytes):
            self.handed_on |= self.told.get(answer, set())
        self.told.clear()
        return self.steps


class Counting(Replicated):
    """A machine with one command."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self, why: str) -> int:
        """Count."""
        self.total += len(why) > 0
        return self.total


@asynccontextmanager
async def member(directory: Path) -> AsyncIterator[tuple[KvServer, grpc.aio.Channel, Client]]:
    """A cluster of one, with a channel and a client."""
    config = ServerConfig(
        name="n1",
        data_dir=directory / "n1",
        listen_client="127.0.0.1:0",
        listen_peer="127.0.0.1:0",
        listen_http="127.0.0.1:0",
    )
    server = KvServer(config, {"counting": hosted(Counting(), "counting")})
    await server.start()
    try:
        async with (
            grpc.aio.insecure_channel(server.client_address) as channel,
            connect_kv.connect(server.client_address, session=False) as client,
        ):
            await client.put(MARK, "v")
            yield server, channel, client
    finally:
        await server.stop()


async def trace(only: list[str], files_too: bool, functions_too: bool) -> None:
    """Print a table, a line a request; below it what is entered in each file, and how often."""
    tracer = Tracer()
    tracer.install()
    with tempfile.TemporaryDirectory() as directory:
        async with member(Path(directory)) as (_, channel, _client):
            requests = await _requests(channel)
            print(f"{'request':16} {'files':>6} {'calls':>6} {'handed on':>10}   below the front end")
            for name, work in requests.items():
                if only and name not in only:
                    continue
                await work()  # what is done once, such as filling a cache, is no part of the way
                await asyncio.sleep(QUIET_SECONDS)  # nor is what this one leaves to do
                tracer.handed_on.clear()
                steps = await _of_each(tracer, work)
                below = {at: times for at, times in steps.items() if not at[0].startswith(NOT_BELOW)}
                files = [file for file in tracer.order if any(at[0] == file for at in below)]
                mark = {file: "*" if file in tracer.handed_on else "" for file in files}
                named = " ".join(mark[file] + file for file in files) if files_too else ""
                calls, given = sum(below.values()), sum(map(bool, mark.values()))
                print(f"{name:16} {len(files):6} {calls:6} {given:10}   {named}")
                for file in files if functions_too else ():
                    entered = [f"{at[1]} {times}" for at, times in below.items() if at[0] == file]
                    print(f"    {mark[file]}{file}: {', '.join(entered)}")


async def _of_each(tracer: Tracer, work: Callable[[], Awaitable[object]]) -> Steps:
    """What every round has, beyond the most that any time without the request had."""
    idle: Steps = Counter()
    found: Steps | None = None
    for _ in range(ROUNDS):
        idle |= await tracer.during(_nothing)
        steps = await tracer.during(work)
        found = steps if found is None else found & steps
    assert found is not None
    return found - idle


async def _nothing() -> None:
    """Only what the member does by itself."""


async def _requests(channel: grpc.aio.Channel) -> dict[str, Callable[[], Awaitable[object]]]:
    def unary(path: str, request: bytes) -> Callable[[], Awaitable[object]]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
        return lambda: method(request)

    put = unary("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=MARK, value=b"v").SerializeToString())
    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/etcdserverpb.Watch/Watch"
    )
    watch = stream()
    create = watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"w"))
    await watch.write(create.SerializeToString())
    await watch.read()
    watched = unary("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"w", value=MARK).SerializeToString())

    async def event() -> None:
        await asyncio.gather(watched(), watch.read())

    async def snapshot() -> None:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot"
        )
        async for _ in method(maintenance_pb2.SnapshotRequest().SerializeToString()):
            pass

    call = machine_pb2.MachineCallRequest(
        machine="counting", method="increment", json=json.dumps({"why": MARK.decode()})
    )
    return {
        "put": put,
        "range": unary("/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=MARK).SerializeToString()),
        "watch event": event,
        "@command": unary("/connect_kv.v1.Machine/Call", call.SerializeToString()),
        "snapshot": snapshot,
    }


def main() -> None:
    """The command behind scripts/trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "requests", nargs="*", help="put, range, 'watch event', @command, snapshot; all by default"
    )
    parser.add_argument(
        "--files", action="store_true", help="name the files, in the order in which they are entered"
    )
    parser.add_argument("--functions", action="store_true", help="a line a file: what is entered, how often")
    arguments = parser.parse_args()
    asyncio.run(trace(arguments.requests, arguments.files, arguments.functions))


if __name__ == "__main__":
    main()
