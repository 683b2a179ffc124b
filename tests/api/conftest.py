"""Helpers of the API tests: a node that answers at once, and a server around any servicer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import grpc

from connect_kv.api.grpc_server import SERVICES
from connect_kv.api.registrar import AUTH_METHODS, Handlers
from connect_kv.api.streams import Streams
from connect_kv.metrics import Metrics
from connect_kv.rpc.command_pb2 import CommandBatch, Result

Answer = Callable[[CommandBatch], Sequence[Result]]


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event of its own
            await asyncio.sleep(0.001)


class FakeNode:
    """Answers proposals by a function; remembers what was proposed."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.term = 3
        self.leader_id: int | None = 1
        self.answer = answer or (lambda batch: [Result(number=c.number) for c in batch.commands])
        self.batches: list[CommandBatch] = []
        self.barriers = 0
        self.failures: list[Exception] = []
        """Raised by the next proposals or barriers, in order."""

    async def propose(self, payload: bytes, count: int = 1) -> Sequence[Result]:
        if self.failures:
            raise self.failures.pop(0)
        batch = CommandBatch.FromString(payload)
        assert len(batch.commands) == count
        self.batches.append(batch)
        return self.answer(batch)

    async def read_barrier(self) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.barriers += 1
        return 7


@asynccontextmanager
async def serving(
    servicers: dict[str, object], *, has_leader: Callable[[], bool] = lambda: True
) -> AsyncIterator[tuple[grpc.aio.Channel, Streams, Metrics]]:
    """A grpc.aio server with these servicers and a channel to it."""
    metrics = Metrics(process=False)
    streams = Streams(has_leader, patience=0.05)
    handlers = Handlers(streams, metrics, has_leader)
    for service in SERVICES:
        handlers.add(service, servicers.get(service.name))
    handlers.refuse("etcdserverpb.Auth", AUTH_METHODS)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, streams, metrics
    finally:
        await server.stop(0)
