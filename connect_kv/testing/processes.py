"""Clusters of real processes on loopback, for tests: start, kill, pause, restart, wait."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

import connect_kv
from connect_kv.client.client import Client
from connect_kv.credentials import Tls
from connect_kv.testing.ports import free_ports

START_TIMEOUT = 120.0
T = TypeVar("T")


class DidNotStart(AssertionError):
    """A node ended, or was not ready in time; carries the end of its log."""


async def until(condition: Callable[[], Awaitable[T | None]], timeout: float, what: str) -> T:
    """Ask until the answer is true, and return it. Raises TimeoutError naming `what`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout
    while True:
        if answer := await condition():
            return answer
        if loop.time() >= end:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        await asyncio.sleep(0.02)


class ServerProcess:
    """A member of a cluster: one process at a time, and the file that it prints into."""

    def __init__(self, name: str, log_file: Path) -> None:
        self.name = name
        self.log_file = log_file
        self._process: asyncio.subprocess.Process | None = None

    @property
    def client_address(self) -> str:
        """``host:port`` for clients."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start it; does not wait until it serves."""
        raise NotImplementedError

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status of the last process, once it ended."""
        return None if self._process is None else self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.running:
            self.signal(signal.SIGKILL)
        await self.wait()

    async def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM, and wait until it has ended; returns the exit status."""
        if self.running:
            self.signal(signal.SIGTERM)
        return await self.wait(timeout)

    async def wait(self, timeout: float = 20.0) -> int:
        """Wait until the process ends by itself."""
        assert self._process is not None
        async with asyncio.timeout(timeout):
            return await self._process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The end of what it printed."""
        text = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def processor_seconds(self) -> float:
        """Processor time the process has used so far, on all its threads."""
        return processor_seconds(self.pid)

    def memory(self) -> dict[str, int]:
        """Resident memory of the process in bytes, by kind: RssAnon, RssFile, VmRSS."""
        return resident_memory(self.pid)

    async def _launch(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env=environment
            )


class NodeProcess(ServerProcess):
    """One `connect-kv serve` process and its data directory, which outlives it."""

    def __init__(
        self,
        name: str,
        directory: Path,
        ports: tuple[int, int, int],
        arguments: Sequence[str],
        *,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(name, directory / f"{name}.log")
        self.host = host
        self.data_dir = directory / name
        self.client_port, self.peer_port, self.http_port = ports
        self.arguments = list(arguments)
        self.environment: dict[str, str] = {}
        """Added to the process's environment at its next start."""
        self.wrapper: list[str] = []
        """Command the process is started under at its next start (a tracer, a limit)."""
        self.python = sys.executable
        """What runs it: that of another environment has another version."""
        self.program = "connect_kv.cli.main"
        """Module that is run; another one may plant a fault first."""

    @property
    def client_address(self) -> str:
        """``host:port`` for clients."""
        return f"{self.host}:{self.client_port}"

    @property
    def peer_address(self) -> str:
        """``host:port`` for other members."""
        return f"{self.host}:{self.peer_port}"

    def command(self) -> list[str]:
        """What is executed."""
        return [
            *self.wrapper, self.python, "-m", self.program, "serve",
            "--name", self.name, "--data-dir", str(self.data_dir),
            "--listen-client", self.client_address, "--listen-peer", self.peer_address,
            "--listen-http", f"{self.host}:{self.http_port}", *self.arguments,
        ]  # fmt: skip

    async def start(self) -> None:
        """Start it; does not wait until it serves."""
        assert not self.running, f"{self.name} runs already"
        await self._launch(self.command(), {**os.environ, **self.environment})

    async def ready(self, timeout: float = START_TIMEOUT) -> None:
        """Wait until it serves linearizable reads."""

        async def probe() -> bool:
            if not self.running:
                raise DidNotStart(f"{self.name} ended with {self.returncode}:\n{self.log_tail()}")
            return await self.http("/readyz") == 200

        try:
            await until(probe, timeout, f"{self.name} to be ready")
        except TimeoutError as error:
            raise DidNotStart(f"{error}:\n{self.log_tail()}") from error

    async def http(self, path: str) -> int | None:
        """Status of a GET on the HTTP port; None if it does not answer."""
        found = await asyncio.to_thread(_get, f"http://{self.host}:{self.http_port}{path}", 2.0)
        return None if found is None else found[0]

    async def metric(self, name: str) -> float | None:
        """A value without labels from its metrics; None if it does not answer."""
        found = await asyncio.to_thread(_get, f"http://127.0.0.1:{self.http_port}/metrics", 5.0)
        for line in () if found is None else found[1].splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return None


class ProcessCluster:
    """Some nodes that form one cluster. An async context manager: leaving it kills what runs."""

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        machines: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        spares: int = 0,
        tls: Tls | None = None,
        user: str = "",
        password: str | None = None,
    ) -> None:
        """`spares`: nodes that are not members yet; add them, then `start_joining`.

        `tls`, `user` and `password`: as which its own clients come; the nodes' side is told by `arguments`.
        """
        self.tls = tls
        self.user = user
        self.password = password
        names = [f"n{number}" for number in range(1, size + spares + 1)]
        ports = free_ports(3 * len(names))
        triples = [(ports[3 * i], ports[3 * i + 1], ports[3 * i + 2]) for i in range(len(names))]
        hosted = [
            word for name, target in (machines or {}).items() for word in ("--machine", f"{name}={target}")
        ]
        directory.mkdir(parents=True, exist_ok=True)
        everybody = [
            NodeProcess(name, directory, triple, [*hosted, *arguments])
            for name, triple in zip(names, triples, strict=True)
        ]
        self.nodes, self.spares = everybody[:size], everybody[size:]
        self.initial_cluster = ",".join(f"{node.name}={node.peer_address}" for node in self.nodes)
        """As the option takes it."""
        for node in self.nodes:
            node.arguments += ["--initial-cluster", self.initial_cluster]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(node.kill() for node in (*self.nodes, *self.spares) if node.running))

    async def start(self) -> None:
        """Start those that do not run, and wait until all serve."""
        await asyncio.gather(*(node.start() for node in self.nodes if not node.running))
        await asyncio.gather(*(node.ready() for node in self.nodes))

    @property
    def endpoints(self) -> str:
        """The addresses of all nodes, as a client takes them."""
        return ",".join(node.client_address for node in (*self.nodes, *self.spares))

    async def start_joining(self, node: NodeProcess) -> None:
        """Start a spare that the cluster has added; it joins by asking the other members."""
        self.spares.remove(node)
        known = ",".join(f"{one.name}={one.peer_address}" for one in (*self.nodes, node))
        node.arguments += ["--initial-cluster", known, "--initial-cluster-state", "existing"]
        self.nodes.append(node)
        await node.start()

    def client(self, endpoints: str = "", *, session: bool = True) -> Client:
        """A client of all nodes, or of some; use it as an async context manager."""
        return connect_kv.connect(
            endpoints or self.endpoints,
            session=session,
            tls=self.tls,
            user=self.user,
            password=self.password,
        )

    async def leader(self, timeout: float = 10.0) -> NodeProcess:
        """The running node that leads, as soon as there is one."""

        async def find() -> NodeProcess | None:
            for node in self.nodes:
                if node.running and await leads(node, self.client(node.client_address, session=False)):
                    return node
            return None

        return await until(find, timeout, "a leader")


def processor_seconds(pid: int) -> float:
    """Processor time a process has used so far, on all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_memory(pid: int) -> dict[str, int]:
    """Resident memory of a process in bytes, by kind: RssAnon, RssFile, VmRSS."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {key: int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "RssAnon", "RssFile")}


async def leads(node: NodeProcess, client: Client | None = None) -> bool:
    """Whether that node answers and says that it is the leader; `client`: another than one in the clear."""
    with suppress(connect_kv.ConnectKvError, OSError, TimeoutError):
        async with client or connect_kv.connect(node.client_address, session=False) as asking:
            status = await asking.status(node.client_address, timeout=2)
            return status.leader == status.header.member_id
    return False


def _get(url: str, timeout: float) -> tuple[int, str] | None:
    """Status and body of an answer; None if there is none. Blocks."""
    try:
        with urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (OSError, ValueError):
        return None
