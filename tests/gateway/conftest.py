"""One member for the tests of a file, and an HTTP server around any handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connect_kv.config import ServerConfig
from connect_kv.frontend.http.connection import Handler
from connect_kv.frontend.http.limits import HttpLimits
from connect_kv.frontend.http.server import HttpServer
from connect_kv.server.composition import KvServer


@asynccontextmanager
async def member(directory: Path, **options: object) -> AsyncIterator[KvServer]:
    config = ServerConfig(
        name="n1",
        data_dir=directory / "n1",
        listen_client="127.0.0.1:0",
        listen_peer="127.0.0.1:0",
        listen_http="127.0.0.1:0",
        bcrypt_cost=4,
        **options,  # type: ignore[arg-type]
    )
    server = KvServer(config)
    await server.start()
    try:
        await server.services.opening.wait()
        await server.node.read_barrier()
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KvServer]:
    async with member(tmp_path) as found:
        yield found


@pytest.fixture
def port(server: KvServer) -> int:
    return server.services.client_port


@asynccontextmanager
async def serving(
    handler: Handler, limits: HttpLimits | None = None
) -> AsyncIterator[tuple[int, HttpServer]]:
    """A port that answers with that handler."""
    import socket

    server = HttpServer(limits)
    one = socket.create_server(("127.0.0.1", 0))
    await server.listen([one], handler)
    try:
        yield one.getsockname()[1], server
    finally:
        await server.stop(0.1)
        one.close()
