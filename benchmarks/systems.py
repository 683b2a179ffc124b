"""The systems that are compared: each a few real processes on loopback, with every sync on."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio

from connect_kv.bench.access import ANYBODY, BenchAccess
from connect_kv.errors import ConnectKvError
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse
from connect_kv.rpc.maintenance_pb2 import StatusRequest, StatusResponse
from connect_kv.testing.network import NodeLocation
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import (
    NodeProcess,
    ProcessCluster,
    ServerProcess,
    processor_seconds,
    resident_memory,
    until,
)

START_SECONDS = 60.0
QUOTA_BYTES = 64 << 30
"""For both: no load may end for want of room."""
MEBIBYTE = 1 << 20


class System:
    """Some server processes. An async context manager: leaving it kills them.

    Where `keep` is set, their data is there the next time.
    """

    name = ""
    keep = False
    scheme = "http"
    """The scheme of the addresses that clients use."""
    headers: Sequence[str] = ()
    """What h2load sends beside each call."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: list[str] = []
        """Where clients reach the members; loads take them in this order."""

    @property
    def pids(self) -> Sequence[int]:
        """Of the servers that run."""
        raise NotImplementedError

    @property
    def metrics_addresses(self) -> Sequence[str]:
        """Where each shows its metrics, over HTTP; none if it does not."""
        return ()

    @property
    def endpoints(self) -> str:
        """The addresses of all members, as a client takes them."""
        return ",".join(self.addresses)

    def cpu_seconds(self) -> float:
        """Processor time all servers have used so far."""
        return sum(map(processor_seconds, self.pids))

    def memory(self) -> dict[str, float]:
        """MiB of the largest server: without what is only mapped from files, and with it."""
        return {
            name: max(resident_memory(pid)[field] for pid in self.pids) / MEBIBYTE
            for name, field in (("anonymous", "RssAnon"), ("resident", "VmRSS"))
        }

    async def __aenter__(self) -> Self:
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    async def start(self) -> None:
        """Start all, and wait until each answers a linearizable read."""
        raise NotImplementedError

    async def kill(self) -> None:
        """SIGKILL to all."""
        raise NotImplementedError


class KeyValueSystem(System):
    """A cluster that answers etcd's API."""

    members: Sequence[ServerProcess] = ()
    access: BenchAccess = ANYBODY
    """As whom it is asked how it is."""

    @property
    def metrics_addresses(self) -> Sequence[str]:
        """Where each shows its metrics, over HTTP."""
        return [member.client_address for member in self.members]

    @property
    def pids(self) -> Sequence[int]:
        """Of the servers that run."""
        return [member.pid for member in self.members if member.running]

    async def launch(self) -> None:
        """Start all that do not run; waits for nothing."""
        await asyncio.gather(*(member.start() for member in self.members if not member.running))

    async def start(self) -> None:
        """Start all that do not run, and wait until each answers a linearizable read."""
        await self.launch()
        await asyncio.gather(*(answers(member.client_address, self.access) for member in self.members))

    async def stop(self) -> None:
        """SIGTERM to all, and wait until they have ended."""
        await asyncio.gather(*(member.stop(60.0) for member in self.members if member.running))

    async def kill(self) -> None:
        """SIGKILL to all."""
        await asyncio.gather(*(member.kill() for member in self.members if member.running))

    async def leader(self) -> ServerProcess:
        """The member that leads, as soon as one says so of itself."""

        async def find() -> ServerProcess | None:
            for member in self.members:
                if member.running and await _leads(member.client_address, self.access):
                    return member
            return None

        return await until(find, START_SECONDS, f"{self.name} to have a leader")

    async def leader_first(self) -> None:
        """Put the leader's address in front."""
        leader = (await self.leader()).client_address
        self.addresses.sort(key=lambda address: address != leader)


class ConnectKv(KeyValueSystem):
    """A cluster of connect-kv."""

    name = "connect-kv"

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        arguments: Sequence[str] = (),
        program: str | None = None,
        places: Sequence[NodeLocation] | None = None,
    ) -> None:
        """`program`: the module that is run; `places`: where in a network, other than on loopback."""
        super().__init__(directory)
        machines = {"counter": "connect_kv.bench.targets:BenchCounter"}
        arguments = ("--quota-bytes", str(QUOTA_BYTES), *arguments)
        if places is None:
            self.nodes = ProcessCluster(directory, size, machines=machines, arguments=arguments).nodes
        else:
            self.nodes = _placed(directory, places, arguments)
        for node in self.nodes:
            node.program = program or node.program
        self.members = self.nodes
        self.addresses = [node.client_address for node in self.nodes]

    @property
    def metrics_addresses(self) -> Sequence[str]:
        """Where each shows its metrics, over HTTP."""
        return [f"{node.host}:{node.http_port}" for node in self.nodes]


def _placed(directory: Path, places: Sequence[NodeLocation], arguments: Sequence[str]) -> list[NodeProcess]:
    initial = ",".join(f"n{number}={place.peer_address}" for number, place in enumerate(places, 1))
    nodes = []
    for number, place in enumerate(places, 1):
        own = ["--initial-cluster", initial, *arguments]
        node = NodeProcess(f"n{number}", directory, place.ports, own, host=place.host)
        node.wrapper = list(place.wrapper)
        nodes.append(node)
    return nodes


class EtcdMember(ServerProcess):
    """One etcd, as it comes."""

    def __init__(self, program: str, directory: Path, name: str, place: NodeLocation) -> None:
        super().__init__(name, directory / f"{name}.log")
        self.place = place
        self.initial_cluster = ""
        self.scheme = "http"
        self.arguments: Sequence[str] = ()
        self._directory = directory
        self._command = [*place.wrapper, program]

    @property
    def client_address(self) -> str:
        """``host:port`` for clients."""
        return f"{self.place.host}:{self.place.ports[0]}"

    async def start(self) -> None:
        """Start it; does not wait until it serves."""
        peer, client = f"http://{self.place.peer_address}", f"{self.scheme}://{self.client_address}"
        arguments = [
            "--name", self.name, "--data-dir", str(self._directory / self.name),
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--initial-cluster", self.initial_cluster, "--log-level", "error",
            "--quota-backend-bytes", str(QUOTA_BYTES), "--max-txn-ops", "1024", *self.arguments,
        ]  # fmt: skip
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        await self._launch([*self._command, *arguments], environment)


class Etcd(KeyValueSystem):
    """A cluster of etcd, as it comes."""

    name = "etcd"

    def __init__(
        self, directory: Path, program: str, size: int = 3, *, places: Sequence[NodeLocation] | None = None
    ) -> None:
        super().__init__(directory)
        found = places if places is not None else _on_loopback(size)
        self._servers = [
            EtcdMember(program, directory, f"e{number}", place) for number, place in enumerate(found, 1)
        ]
        for server in self._servers:
            server.initial_cluster = ",".join(
                f"{one.name}=http://{one.place.peer_address}" for one in self._servers
            )
        self.members = self._servers
        self.addresses = [server.client_address for server in self._servers]


def _on_loopback(size: int) -> list[NodeLocation]:
    ports = free_ports(3 * size)
    triples = [(ports[3 * i], ports[3 * i + 1], ports[3 * i + 2]) for i in range(size)]
    return [NodeLocation("127.0.0.1", three, f"127.0.0.1:{three[1]}") for three in triples]


async def _leads(address: str, access: BenchAccess = ANYBODY) -> bool:
    (made,) = access.channels([address])
    async with made as channel:
        status = channel.unary_unary(
            "/etcdserverpb.Maintenance/Status",
            request_serializer=StatusRequest.SerializeToString,
            response_deserializer=StatusResponse.FromString,
        )
        try:
            shown = await access.metadata(channel)
            answer: StatusResponse = await status(StatusRequest(), timeout=2, metadata=shown)
        except (grpc.aio.AioRpcError, ConnectKvError):
            return False
        return answer.leader == answer.header.member_id


async def answers(address: str, access: BenchAccess = ANYBODY) -> None:
    """Wait until a linearizable read is answered there."""

    async def probe() -> bool:
        (made,) = access.channels([address])
        async with made as channel:
            get = channel.unary_unary(
                "/etcdserverpb.KV/Range",
                request_serializer=RangeRequest.SerializeToString,
                response_deserializer=RangeResponse.FromString,
            )
            try:
                shown = await access.metadata(channel)
                await get(RangeRequest(key=b"x"), timeout=1, metadata=shown)
            except (grpc.aio.AioRpcError, ConnectKvError):
                return False
            return True

    await until(probe, START_SECONDS, f"{address} to answer")
