"""The two servers whose figures stand side by side: started, stopped, weighed the same way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import grpc

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import maintenance_pb2 as maintenance
from connect_kv.testing.processes import NodeProcess, ProcessCluster
from tests.etcd import Etcd

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
]
MEBIBYTE = 1 << 20


Figures = dict[str, str]
"""Rows of the table: what it is, and this side's figure."""


class Side(Protocol):
    """One server, alone."""

    name: str
    data: Path
    """Where its keys and values are on disk, without the log."""

    @property
    def address(self) -> str: ...

    @property
    def pid(self) -> int: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def give_back_space(self) -> str:
        """What an operator does after a compaction; says what that was."""


class Ours:
    """One node."""

    name = "connect-kv"

    def __init__(self, directory: Path) -> None:
        self._node: NodeProcess = ProcessCluster(directory, 1).nodes[0]
        self.data = self._node.data_dir / "state"

    @property
    def address(self) -> str:
        return self._node.client_address

    @property
    def pid(self) -> int:
        return self._node.pid

    async def start(self) -> None:
        await self._node.start()

    async def stop(self) -> None:
        await self._node.stop(60)

    async def give_back_space(self) -> str:
        return ""


class Theirs:
    """One etcd."""

    name = "etcd"

    def __init__(self, directory: Path, program: str) -> None:
        self._etcd = Etcd(directory, program)
        self._etcd.arguments = ["--quota-backend-bytes", str(8 << 30)]
        self.data = directory / "data" / "member" / "snap"

    @property
    def address(self) -> str:
        return self._etcd.client_address

    @property
    def pid(self) -> int:
        return self._etcd.pid

    async def start(self) -> None:
        await self._etcd.start()

    async def stop(self) -> None:
        await self._etcd.stop()

    async def give_back_space(self) -> str:
        async with channel(self) as connection:
            await unary(connection, "Maintenance/Defragment", maintenance.DefragmentRequest())
        return "after Defragment"


def channel(side: Side) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(side.address, options=OPTIONS)


ANSWERS: Mapping[str, Any] = {
    "KV/Range": kv.RangeResponse,
    "KV/Put": kv.PutResponse,
    "KV/Txn": kv.TxnResponse,
    "KV/Compact": kv.CompactionResponse,
    "Lease/LeaseGrant": lease.LeaseGrantResponse,
    "Maintenance/Defragment": maintenance.DefragmentResponse,
}


def caller(connection: grpc.aio.Channel, method: str) -> Any:
    """A method under etcd's name, which both have."""
    return connection.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=ANSWERS[method].FromString,
    )


async def unary(connection: grpc.aio.Channel, method: str, request: Any) -> Any:
    return await caller(connection, method)(request, timeout=600)


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await work()
    return loop.time() - began


async def first_answer(side: Side) -> float:
    """Start it; seconds until a linearizable read is answered."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await side.start()
    while True:
        async with channel(side) as connection:
            try:
                await caller(connection, "KV/Range")(kv.RangeRequest(key=b"first"), timeout=60)
                return loop.time() - began
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)


def memory(side: Side) -> tuple[float, float]:
    """Anonymous and resident memory of the process, MiB."""
    status = Path(f"/proc/{side.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    anonymous, resident = (int(fields[key].split()[0]) / 1024 for key in ("RssAnon", "VmRSS"))
    return anonymous, resident


def processor(side: Side) -> float:
    """Seconds of processor time its process has used."""
    fields = Path(f"/proc/{side.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def disk(side: Side) -> float:
    """What its data takes on disk, MiB."""
    used = 0
    for place, _, names in os.walk(side.data):
        for name in names:
            try:
                used += (Path(place) / name).stat().st_blocks * 512
            except FileNotFoundError:
                continue  # a table that was just merged away
    return used / MEBIBYTE
