"""What this is compared with beside etcd: the bare library, and PySyncObj."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems import START_SECONDS, System, answers
from connect_kv.testing.ports import free_ports


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
        """The process id of the server."""
        return [self._process.pid] if self._process is not None else []

    async def start(self) -> None:
        """Start the server."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.floor", str(self._port)
        )
        await answers(self.addresses[0])

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()


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
        """The process ids of all members."""
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
