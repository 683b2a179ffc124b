"""Members in this process: real disks, real gRPC between them and to clients, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.server.composition import KvServer
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.testing.ports import free_ports
from tests.doors import GRPC_SERVER
from tests.services.conftest import unary, until

T = TypeVar("T", bound=Message)


def configs(directory: Path, size: int) -> list[ServerConfig]:
    """Of a new cluster with quick elections."""
    ports = free_ports(size)
    members = tuple(
        InitialMember(name=f"n{number}", peer_address=f"127.0.0.1:{port}")
        for number, port in enumerate(ports, 1)
    )
    return [
        ServerConfig(
            name=member.name,
            data_dir=directory / member.name,
            listen_client="127.0.0.1:0",
            listen_peer=member.peer_address,
            listen_http="127.0.0.1:0",
            grpc_server=GRPC_SERVER,
            initial_cluster=members,
            heartbeat_ms=40,
            election_ms=400,
            tick_ms=20,
        )
        for member in members
    ]


class Member:
    """A running member and a channel to it."""

    def __init__(self, config: ServerConfig, machines: Mapping[str, HostedMachine] | None = None) -> None:
        self.config = config
        self.server = KvServer(config, machines)
        self.channel: grpc.aio.Channel

    async def start(self) -> None:
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(self.server.client_address)

    async def stop(self) -> None:
        await self.channel.close()
        await self.server.stop()

    async def call(self, path: str, request: Message, answer: type[T]) -> T:
        """A unary call as any client makes it: by path and bytes."""
        method = unary(self.channel, path)
        return answer.FromString(await method(request.SerializeToString(), timeout=10))


@asynccontextmanager
async def running(
    wanted: Sequence[ServerConfig], machines: Sequence[Mapping[str, HostedMachine]] | None = None
) -> AsyncIterator[list[Member]]:
    """Start them all; wait until they agree on a leader and have published themselves."""
    members = [Member(config, machines[at] if machines else None) for at, config in enumerate(wanted)]
    started: list[Member] = []
    try:
        for member in members:
            await member.start()
            started.append(member)
        await until(lambda: agree(members))
        await until(lambda: all(len(one.server.host.cluster.members) == len(members) for one in members))
        for member in members:
            await member.server.node.read_barrier()
        yield members
    finally:
        await asyncio.gather(*(member.stop() for member in started))


def agree(members: Sequence[Member]) -> bool:
    """Whether all follow the same leader."""
    leaders = {member.server.node.leader_id for member in members}
    return len(leaders) == 1 and None not in leaders
