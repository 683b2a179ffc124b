"""The systems that are compared: each a few real processes on loopback, with every sync on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio

from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse
from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import ProcessCluster, until

START_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class System:
    """Some server processes. An async context manager: leaving it kills them."""

    name = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.addresses: list[str] = []
        """Where clients reach the members."""

    @property
    def pids(self) -> Sequence[int]:
        """Of the servers."""
        raise NotImplementedError

    @property
    def endpoints(self) -> str:
        """For a client."""
        return ",".join(self.addresses)

    def cpu_seconds(self) -> float:
        """Processor time all servers have used so far."""
        return sum(_cpu(pid) for pid in self.pids)

    def anonymous_memory(self) -> int:
        """Bytes of the largest server, without what is only mapped from files."""
        return max(_status(pid, "RssAnon") for pid in self.pids)

    def resident_memory(self) -> int:
        """The same with mapped files."""
        return max(_status(pid, "VmRSS") for pid in self.pids)

    async def __aenter__(self) -> Self:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def start(self) -> None:
        """Start all, and wait until each answers a linearizable read."""
        raise NotImplementedError

    async def kill(self) -> None:
        """SIGKILL to all."""
        raise NotImplementedError

    async def leader_first(self) -> None:
        """Put the leader's address in front."""


class ConnectKv(System):
    """This."""

    name = "connect-kv"

    def __init__(self, directory: Path, size: int = 3) -> None:
        super().__init__(directory)
        machines = {"counter": "connect_kv.bench.doors:Counter"}
        self.cluster = ProcessCluster(directory, size, machines=machines)
        self.addresses = [node.client_address for node in self.cluster.nodes]

    @property
    def pids(self) -> Sequence[int]:
        """Of the servers."""
        return [node.pid for node in self.cluster.nodes if node.running]

    async def start(self) -> None:
        """Start all that do not run."""
        await self.cluster.start()

    async def kill(self) -> None:
        """SIGKILL to all."""
        await asyncio.gather(*(node.kill() for node in self.cluster.nodes if node.running))

    async def leader_first(self) -> None:
        """Put the leader's address in front."""
        leader = (await self.cluster.leader()).client_address
        self.addresses.sort(key=lambda address: address != leader)


class Etcd(System):
    """etcd as it comes."""

    name = "etcd"

    def __init__(self, directory: Path, program: str, size: int = 3) -> None:
        super().__init__(directory)
        self._program = program
        ports = free_ports(2 * size)
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[:size]]
        self.addresses = [f"127.0.0.1:{port}" for port in ports[size:]]
        self._clients = [f"http://{address}" for address in self.addresses]
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def pids(self) -> Sequence[int]:
        """Of the servers."""
        return [process.pid for process in self._processes if process.returncode is None]

    async def start(self) -> None:
        """Start all."""
        initial = ",".join(f"e{number}={peer}" for number, peer in enumerate(self._peers))
        for number, (peer, client) in enumerate(zip(self._peers, self._clients, strict=True)):
            with (self.directory / f"e{number}.log").open("ab") as log:
                arguments = [
                    "--name", f"e{number}", "--data-dir", str(self.directory / f"e{number}"),
                    "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                    "--listen-client-urls", client, "--advertise-client-urls", client,
                    "--initial-cluster", initial, "--log-level", "error",
                    "--quota-backend-bytes", str(8 << 30), "--max-txn-ops", "1024",
                ]  # fmt: skip
                self._processes.append(
                    await asyncio.create_subprocess_exec(self._program, *arguments, stdout=log, stderr=log)
                )
        await asyncio.gather(*(answers(address) for address in self.addresses))

    async def kill(self) -> None:
        """SIGKILL to all."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._processes.clear()


class Floor(System):
    """A grpc.aio server whose handler does nothing: what the library costs."""

    name = "empty handler"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = free_ports(1)[0]
        self.addresses = [f"127.0.0.1:{self._port}"]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pids(self) -> Sequence[int]:
        """Of the server."""
        return [self._process.pid] if self._process is not None else []

    async def start(self) -> None:
        """Start it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.floor", str(self._port)
        )
        await answers(self.addresses[0])

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()


async def answers(address: str) -> None:
    """Wait until a linearizable read is answered there."""

    async def probe() -> bool:
        async with grpc.aio.insecure_channel(address) as channel:
            get = channel.unary_unary(
                "/etcdserverpb.KV/Range",
                request_serializer=RangeRequest.SerializeToString,
                response_deserializer=RangeResponse.FromString,
            )
            try:
                await get(RangeRequest(key=b"x"), timeout=1)
            except grpc.aio.AioRpcError:
                return False
            return True

    await until(probe, START_SECONDS, f"{address} to answer")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _status(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{field}:"))


class PySyncObj(System):
    """Its counter, journal on; the load runs in the leader's process, which spares it the client's way."""

    name = "PySyncObj"

    def __init__(self, directory: Path, size: int = 3) -> None:
        super().__init__(directory)
        self._ports = free_ports(size)
        self._processes: list[asyncio.subprocess.Process] = []
        self._leader: asyncio.subprocess.Process | None = None

    @property
    def pids(self) -> Sequence[int]:
        """Of all."""
        return [process.pid for process in self._processes]

    async def start(self) -> None:
        """Start all and find who leads."""
        ports = ",".join(map(str, self._ports))
        for number in range(len(self._ports)):
            command = ["benchmarks.pysyncobj_counter", str(number), ports, str(self.directory)]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            self._processes.append(process)
        async with asyncio.timeout(START_SECONDS):
            for process in self._processes:
                if (await _line(process))["leads"]:
                    self._leader = process

    async def load(self, callers: int, total: int) -> dict[str, float]:
        """What the leader measured."""
        process = self._leader
        if process is None or process.stdin is None:
            raise RuntimeError("PySyncObj has no leader")
        process.stdin.write(f"{callers} {total}\n".encode())
        async with asyncio.timeout(START_SECONDS):
            return await _line(process)

    async def kill(self) -> None:
        """SIGKILL to all."""
        for process in self._processes:
            process.kill()
            await process.wait()


async def _line(process: asyncio.subprocess.Process) -> dict[str, float]:
    assert process.stdout is not None
    found: dict[str, float] = json.loads(await process.stdout.readline())
    return found
