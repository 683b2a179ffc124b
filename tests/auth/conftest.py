"""A member with users: root, and al who may read and write below ``k``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connect_kv import Client, connect
from connect_kv.client.auth import READWRITE
from connect_kv.config import ServerConfig
from connect_kv.server.composition import KvServer
from connect_kv.statemachine.hosted import HostedMachine
from connect_kv.testing.ports import free_ports

PASSWORDS = {"root": "r00t", "al": "secret"}


@pytest.fixture
def address() -> str:
    """Of a member that is stopped and started again."""
    return f"127.0.0.1:{free_ports(1)[0]}"


@asynccontextmanager
async def server_at(
    tmp_path: Path, machines: Mapping[str, HostedMachine] | None = None, **options: Any
) -> AsyncIterator[KvServer]:
    """A cluster of one, on ports that are free."""
    directory = tmp_path / "n1"
    directory.mkdir(mode=0o700, exist_ok=True)
    addresses = {f"listen_{port}": "127.0.0.1:0" for port in ("client", "peer", "http")}
    given = {**addresses, "advertise_peer": "127.0.0.1:2380", "bcrypt_cost": 4, **options}
    server = KvServer(ServerConfig(name="n1", data_dir=directory, **given), machines)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def user(server: KvServer, name: str, *, session: bool = True, timeout: float = 5) -> Client:
    return connect(
        server.client_address, user=name, password=PASSWORDS[name], session=session, timeout=timeout
    )


async def found_users(root: Client) -> None:
    await root.auth.add_user("root", PASSWORDS["root"])
    await root.auth.grant_role("root", "root")
    await root.auth.add_user("al", PASSWORDS["al"])
    await root.auth.add_role("k")
    await root.auth.grant("k", READWRITE, "k", prefix=True)
    await root.auth.grant_role("al", "k")


@asynccontextmanager
async def guarded(
    tmp_path: Path, machines: Mapping[str, HostedMachine] | None = None, **options: Any
) -> AsyncIterator[tuple[KvServer, Client]]:
    """A server with these users, authentication on, and root's client."""
    async with server_at(tmp_path, machines, **options) as server, user(server, "root") as root:
        await found_users(root)
        await root.auth.enable()
        yield server, root
