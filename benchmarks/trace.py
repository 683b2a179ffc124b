"""Follows single requests through one member and counts the files and functions they pass: a reader's walk.

What a member does by itself meanwhile (ticks, timers) is traced in between, and left out where it does not
occur more often with each request than without any.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import grpc

import connect_kv
from connect_kv import Replicated, command
from connect_kv.client.client import Client
from connect_kv.config import ServerConfig
from connect_kv.rpc import kv_pb2, machine_pb2, maintenance_pb2, watch_pb2
from connect_kv.server.composition import KvServer
from connect_kv.server.machines import hosted

PACKAGE = Path(connect_kv.__file__).parent
NOT_BELOW = ("rpc/", "client/", "frontend/", "http2/", "errors.py", "metrics.py")
"""Generated code, the client's side, and what stands in front of the services."""
ROUNDS = 5
"""So often each request is followed: what is not met every time is no part of its way."""
QUIET_SECONDS = 0.3

Steps = Counter[tuple[str, str]]
"""How often each function of each file was entered, a coroutine at each time it goes on."""


class Tracer:
    """Counts calls within the package, on every thread begun after it."""

    def __init__(self) -> None:
        self.steps: Steps = Counter()
        self.order: dict[str, None] = {}
        self.on = False

    def install(self) -> None:
        """From now on, until the process ends."""
        threading.setprofile(self._event)
        sys.setprofile(self._event)

    def _event(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not self.on:
            return
        file = frame.f_code.co_filename
        if file.startswith(str(PACKAGE)):
            name = file[len(str(PACKAGE)) + 1 :]
            self.steps[name, frame.f_code.co_qualname] += 1
            self.order.setdefault(name)

    async def during(self, work: Callable[[], Awaitable[object]]) -> Steps:
        """What is entered while it runs, and shortly after."""
        self.steps, self.order, self.on = Counter(), {}, True
        await work()
        await asyncio.sleep(QUIET_SECONDS)
        self.on = False
        return self.steps


class Counting(Replicated):
    """A machine with one command."""

    def __init__(self) -> None:
        self.total = 0

    @command
    def increment(self) -> int:
        """Count."""
        self.total += 1
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
            await client.put("k", "v")
            yield server, channel, client
    finally:
        await server.stop()


async def trace(only: list[str], verbose: bool) -> None:
    """Print a table, a line a request."""
    tracer = Tracer()
    tracer.install()
    with tempfile.TemporaryDirectory() as directory:
        async with member(Path(directory)) as (_, channel, _client):
            requests = await _requests(channel)
            print(f"{'request':16} {'files':>6} {'calls':>6}   below the front end")
            for name, work in requests.items():
                if only and name not in only:
                    continue
                await work()  # what is done once, such as filling a cache, is no part of the way
                await asyncio.sleep(QUIET_SECONDS)  # nor is what this one leaves to do
                steps = await _of_each(tracer, work)
                below = {at: times for at, times in steps.items() if not at[0].startswith(NOT_BELOW)}
                files = [file for file in tracer.order if any(at[0] == file for at in below)]
                print(
                    f"{name:16} {len(files):6} {sum(below.values()):6}   {' '.join(files) if verbose else ''}"
                )


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

    put = unary("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"k", value=b"v").SerializeToString())
    stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
        "/etcdserverpb.Watch/Watch"
    )
    watch = stream()
    create = watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"w"))
    await watch.write(create.SerializeToString())
    await watch.read()
    watched = unary("/etcdserverpb.KV/Put", kv_pb2.PutRequest(key=b"w", value=b"v").SerializeToString())

    async def event() -> None:
        await asyncio.gather(watched(), watch.read())

    async def snapshot() -> None:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot"
        )
        async for _ in method(maintenance_pb2.SnapshotRequest().SerializeToString()):
            pass

    call = machine_pb2.MachineCallRequest(machine="counting", method="increment", json="{}")
    return {
        "put": put,
        "range": unary("/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=b"k").SerializeToString()),
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
    arguments = parser.parse_args()
    asyncio.run(trace(arguments.requests, arguments.files))


if __name__ == "__main__":
    main()
