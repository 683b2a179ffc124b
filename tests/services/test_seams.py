"""The whole of a member over replaced disk, threads, network and chance: as a simulator runs it."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.node.workers import InlineWorker
from connect_kv.rpc import kv_pb2
from connect_kv.server.composition import KvServer, Seams
from connect_kv.services.kv import KvService
from connect_kv.storage import log_sweeper
from connect_kv.storage.leveldb import LevelDbEngine
from connect_kv.storage.memory import MemoryDisk
from connect_kv.transport.memory import MemoryNetwork
from tests.services.cluster import configs
from tests.services.conftest import until

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


async def test_space_of_the_log_is_given_back_beside_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes of the log wait for the thread that makes them; a compaction takes a tenth of a second."""
    threads: list[str] = []

    def noting(engine: LevelDbEngine, start: bytes, stop: bytes) -> None:
        if engine.path.name == "log":
            threads.append(threading.current_thread().name)
        compact_range(engine, start, stop)

    compact_range = LevelDbEngine.compact_range
    monkeypatch.setattr(LevelDbEngine, "compact_range", noting)
    monkeypatch.setattr(log_sweeper, "RECLAIM_BYTES", 1)
    (config,) = configs(tmp_path, 1)
    seams = Seams(tune=lambda config: replace(config, keep_entries=1, durable_seconds=0.01))
    server = KvServer(config, seams=seams)
    await server.start()
    try:
        async with asyncio.timeout(60):
            while len(threads) < 3:
                request = kv_pb2.PutRequest(key=b"k", value=b"v" * 10_000)
                await keys(server).Put(request, NO_CONTEXT)
    finally:
        await server.stop()
    assert set(threads) == {"space"}
