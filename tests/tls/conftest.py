"""A folder of certificates for each test: an authority with a member and two clients, and a foreign one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connect_kv import Tls
from connect_kv.authority import make_authority, make_client, make_node
from connect_kv.config import ServerConfig
from connect_kv.server.composition import KvServer
from tests.doors import GRPC_SERVER

Serving = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "certs"
    make_authority(where)
    make_node(where, "n1", ["127.0.0.1"])
    make_client(where, "alice")
    make_client(where, "bob")
    make_authority(where / "foreign")
    make_client(where / "foreign", "mallory")
    return where


def tls_of(folder: Path, client: str = "") -> Tls:
    """As that client; without a name, with no certificate."""
    if not client:
        return Tls(ca=folder / "ca.pem")
    return Tls(ca=folder / "ca.pem", cert=folder / f"{client}.pem", key=folder / f"{client}.key")


def options_of(folder: Path, *, mutual: bool = False) -> dict[str, Any]:
    """What a server is told for clients."""
    files = {"cert_file": folder / "n1.pem", "key_file": folder / "n1.key"}
    return {**files, "trusted_ca_file": folder / "ca.pem"} if mutual else files


@asynccontextmanager
async def member(tmp_path: Path, **options: Any) -> AsyncIterator[KvServer]:
    """A cluster of one, on ports that are free."""
    directory = tmp_path / "n1"
    directory.mkdir(mode=0o700, exist_ok=True)
    addresses = {f"listen_{port}": "127.0.0.1:0" for port in ("client", "peer", "http")}
    addresses["grpc_server"] = GRPC_SERVER
    given = {**addresses, "advertise_peer": "127.0.0.1:2380", **options}
    config = ServerConfig(name="n1", data_dir=directory, **given)
    server = KvServer(config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
