"""The two servers that clients may be served by. Each is the other's witness.

Tests run with the usual one; ``CONNECT_KV_GRPC_SERVER=grpcio`` before pytest takes the other, as for `serve`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from connect_kv.credentials import Credentials
from connect_kv.frontend.grpc.door import DoorServer
from connect_kv.frontend.grpc.grpcio_server import GrpcioServer
from connect_kv.frontend.grpc.router import Router
from connect_kv.http2.limits import Limits

GRPC_SERVER = os.environ.get("CONNECT_KV_GRPC_SERVER") or "door"


@asynccontextmanager
async def listening(
    router: Router,
    *,
    kind: str = GRPC_SERVER,
    most: int | None = None,
    credentials: Credentials | None = None,
    http1: Callable[[], asyncio.Protocol] | None = None,
    max_request_bytes: int = 1 << 20,
    limits: Limits | None = None,
    grace: float = 0,
) -> AsyncIterator[int]:
    """A server of that kind around a router; gives the port. `most`: calls at a time that may be refused."""
    server: DoorServer | GrpcioServer
    if kind == "grpcio":
        bound = {} if most is None else {"most_served": most}
        server = GrpcioServer(router, max_request_bytes=max_request_bytes, credentials=credentials, **bound)
    else:
        limits = limits or (None if most is None else Limits(served=most))
        server = DoorServer(
            router, max_request_bytes=max_request_bytes, credentials=credentials, http1=http1, limits=limits
        )
    await server.bind("127.0.0.1:0")
    await server.start()
    try:
        yield server.port
    finally:
        await server.stop(grace)
