"""The whole of a member over replaced disk, threads, network and chance: as a simulator runs it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from connect_kv.api.kv import KvService
from connect_kv.config import InitialMember, ServerConfig
from connect_kv.node.workers import InlineWorker
from connect_kv.rpc import kv_pb2
from connect_kv.server import KvServer, Seams
from connect_kv.storage.memory import MemoryDisk
from connect_kv.transport.memory import MemoryNetwork
from tests.api.conftest import until

NAMES = ("n1", "n2", "n3")
NO_CONTEXT: Any = None
"""Unary handlers do not look at it."""


def make(name: str, disk: MemoryDisk, network: MemoryNetwork) -> KvServer:
    members = tuple(InitialMember(name=one, peer_address=f"{one}:2380") for one in NAMES)
    config = ServerConfig(
        name=name,
        data_dir=Path("/data") / name,
        listen_peer=f"{name}:2380",
        initial_cluster=members,
        heartbeat_ms=20,
        election_ms=200,
        tick_ms=10,
    )
    seams = Seams(
        disk=disk,
        rng=random.Random(name),
        transport=lambda config, clock: network.transport(config.listen_peer),
        worker=lambda _: InlineWorker(),
        listens=False,
    )
    return KvServer(config, seams=seams)


def keys(server: KvServer) -> KvService:
    service = server.services.servicers["KV"]
    assert isinstance(service, KvService)
    return service


async def test_what_was_acknowledged_survives_the_loss_of_power_of_all() -> None:
    network = MemoryNetwork(random.Random(1))
    disks = {name: MemoryDisk(random.Random(name)) for name in NAMES}
    servers = [make(name, disks[name], network) for name in NAMES]
    for server in servers:
        await server.start()
    for number in range(30):
        request = kv_pb2.PutRequest(key=b"k%d" % number, value=b"v")
        await keys(servers[number % 3]).Put(request, NO_CONTEXT)
    for name in NAMES:
        disks[name].crash()
    await asyncio.gather(*(server.stop() for server in servers), return_exceptions=True)
    network = MemoryNetwork(random.Random(2))
    again = [make(name, disks[name], network) for name in NAMES]
    for server in again:
        await server.start()
    await until(lambda: any(server.node.is_leader for server in again))
    for server in again:
        answer = await keys(server).Range(kv_pb2.RangeRequest(key=b"k", range_end=b"l"), NO_CONTEXT)
        assert kv_pb2.RangeResponse.FromString(answer).count == 30
    await asyncio.gather(*(server.stop() for server in again))
