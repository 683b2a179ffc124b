"""One node of Patroni with its PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from connect_kv.testing.ports import free_ports
from connect_kv.testing.processes import until

TTL, LOOP_WAIT, RETRY_TIMEOUT = 20, 2, 5
"""Seconds; 20 is the least that Patroni allows."""
SCOPE = "demo"


def program(name: str) -> str:
    """``patroni`` or ``patronictl``: beside the one that PATRONI names, or on the path."""
    chosen = os.environ.get("PATRONI")
    found = str(Path(chosen).parent / name) if chosen else shutil.which(name)
    if not found or not Path(found).exists():
        raise SystemExit(
            f"there is no {name}: apt-get install patroni, or name one: PATRONI=/path/to/patroni"
        )
    return found


def postgres_programs() -> Path:
    """The newest PostgreSQL of Debian, or the one on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if debian:
        return debian[-1]
    found = shutil.which("postgres")
    if found is None:
        raise SystemExit("there is no PostgreSQL: apt-get install postgresql")
    return Path(found).parent


def unprivileged() -> list[str]:
    """What to run PostgreSQL under: it refuses to be root."""
    if os.getuid():
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


class Node:
    """Started by `start`; killed as a machine dies, or only its PostgreSQL."""

    def __init__(
        self,
        name: str,
        directory: Path,
        hosts: Sequence[str],
        settings: Mapping[str, object],
        *,
        proxies: bool,
    ) -> None:
        """`hosts`: of the store; `proxies`: they are all that may be used of it."""
        self.name = name
        self._directory = directory / name
        self.port, self._rest = free_ports(2)
        self.config = directory / f"{name}.yml"
        self._process: asyncio.subprocess.Process | None = None
        self._directory.mkdir()
        etcd3 = {"hosts": list(hosts), **settings, **({"use_proxies": True} if proxies else {})}
        self.config.write_text(json.dumps(self._settings(etcd3), indent=1))  # JSON is YAML
        if not os.getuid():
            user = pwd.getpwnam("postgres")
            os.chown(self._directory, user.pw_uid, user.pw_gid)

    def _settings(self, etcd3: Mapping[str, object]) -> dict[str, object]:
        here, rest = f"127.0.0.1:{self.port}", f"127.0.0.1:{self._rest}"
        user = {"username": "postgres", "password": "demo"}
        return {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {"listen": rest, "connect_address": rest},
            "etcd3": etcd3,
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": LOOP_WAIT,
                    "retry_timeout": RETRY_TIMEOUT,
                    "synchronous_mode": True,
                    "primary_start_timeout": 0,
                    "master_start_timeout": 0,  # its name in Patroni 3.0
                    "postgresql": {"use_pg_rewind": True},
                },
                "initdb": [{"encoding": "UTF8"}, {"auth": "trust"}, "data-checksums"],
            },
            "postgresql": {
                "listen": here,
                "connect_address": here,
                "data_dir": str(self._directory / "data"),
                "bin_dir": str(postgres_programs()),
                "pgpass": str(self._directory / "pgpass"),
                "authentication": {
                    "superuser": user,
                    "replication": {"username": "replicator", "password": "demo"},
                    "rewind": user,
                },
                "pg_hba": [
                    "local all all trust",
                    "host all all 127.0.0.1/32 trust",
                    "host replication all 127.0.0.1/32 trust",
                ],
                "parameters": {
                    "unix_socket_directories": str(self._directory),
                    "shared_buffers": "32MB",
                    "max_connections": 50,
                    "wal_keep_size": "256MB",
                },
            },
        }

    async def start(self) -> None:
        """Patroni, which starts PostgreSQL."""
        with (self._directory.parent / f"{self.name}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *unprivileged(), program("patroni"), str(self.config),
                stdout=log, stderr=log, cwd=self._directory,
            )  # fmt: skip

    def postmaster(self) -> int | None:
        """The process of PostgreSQL."""
        try:
            return int((self._directory / "data" / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def kill_postgres(self) -> None:
        """Only PostgreSQL; Patroni lives."""
        pid = self.postmaster()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def kill(self) -> None:
        """Both at once, as where a machine dies."""
        pid, process = self.postmaster(), self._process
        if process is not None and process.returncode is None:
            process.kill()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process is not None:
            await process.wait()

    async def stop(self) -> None:
        """At the end: Patroni stops PostgreSQL, or is killed with it."""
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(15):
                    await process.wait()
            except TimeoutError:
                pass
        await self.kill()

    async def get(self, path: str) -> tuple[int, Any]:
        """Of Patroni's REST interface: status and body; (0, None) if it does not answer."""
        return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> tuple[int, Any]:
        try:
            with urlopen(f"http://127.0.0.1:{self._rest}{path}", timeout=3) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")
        except (OSError, ValueError):
            return 0, None


async def leader_of(nodes: Sequence[Node], timeout: float = 60.0) -> Node:
    """Who is primary by its own word."""

    async def find() -> Node | None:
        for node in nodes:
            if (await node.get("/primary"))[0] == 200:
                return node
        return None

    return await until(find, timeout, "a primary")


async def all_well(nodes: Sequence[Node], timeout: float = 120.0) -> None:
    """Until there is one leader, and the others follow it, one of them synchronously."""

    async def look() -> bool:
        for node in nodes:
            status, body = await node.get("/cluster")
            if status == 200:
                members = body["members"]
                roles = sorted(one["role"] for one in members)
                return (
                    len(members) == len(nodes)
                    and roles.count("leader") == 1
                    and "sync_standby" in roles
                    and all(one["state"] in ("running", "streaming") for one in members)
                )
        return False

    await until(look, timeout, "one leader and two that follow")
