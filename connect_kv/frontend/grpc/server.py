"""The port clients call: one grpc.aio server with every service, health and reflection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc

from connect_kv.config import split_address
from connect_kv.errors import RefusedToStart
from connect_kv.frontend.grpc.admission import MOST_UNTAKEN, Backlog, calls_begun
from connect_kv.frontend.grpc.health import HealthService
from connect_kv.frontend.grpc.reflection import ReflectionService, reflection_handlers, service_names
from connect_kv.frontend.grpc.router import AUTH_METHODS, Handlers
from connect_kv.interfaces import Clock
from connect_kv.rpc import (
    cluster_pb2,
    election_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    machine_pb2,
    maintenance_pb2,
    session_pb2,
    watch_pb2,
)

_RECEIVE_MARGIN = 512 * 1024
"""Above the request limit, so that a request somewhat too large is refused with a text of ours."""
_MOST_PENDING = 16 * 1024
"""Calls the library keeps for us. It cancels those beyond, without a reason, which a client cannot tell
from a lost answer; they are refused long before (`Backlog`), so this only bounds memory, at 0.4 GiB."""

SERVICES: Sequence[ServiceDescriptor] = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module, name in (
        (kv_pb2, "KV"),
        (watch_pb2, "Watch"),
        (lease_pb2, "Lease"),
        (cluster_pb2, "Cluster"),
        (maintenance_pb2, "Maintenance"),
        (lock_pb2, "Lock"),
        (election_pb2, "Election"),
        (session_pb2, "Session"),
        (machine_pb2, "Machine"),
    )
)
"""All that clients may call; a service without a servicer answers UNIMPLEMENTED by name."""


def add_services(handlers: Handlers, servicers: Mapping[str, object]) -> None:
    """Fill the table; `servicers` by the service's short name."""
    for service in SERVICES:
        handlers.add(service, servicers.get(service.name))
    handlers.refuse("etcdserverpb.Auth", AUTH_METHODS)


class GrpcServer:
    """Listens for clients. Start it once, stop it once."""

    def __init__(
        self,
        handlers: Handlers,
        *,
        max_request_bytes: int,
        serving: Callable[[str], bool],
        clock: Clock,
        most_untaken: int = MOST_UNTAKEN,
    ) -> None:
        """`serving` says of a service, by its full name, whether its calls can be answered now.

        `most_untaken`: calls that may wait for the event loop to take them.
        """
        self._server = grpc.aio.server(
            options=(
                # Otherwise a second process binds the same port without an error and takes half the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_request_bytes + _RECEIVE_MARGIN),
                ("grpc.max_send_message_length", -1),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.server.max_pending_requests", _MOST_PENDING),
                ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
                ("grpc.enable_channelz", 1),
            )
        )
        self._backlog = Backlog(calls_begun(), clock, most_untaken)
        handlers.refuse_beyond(self._backlog)
        self._server.add_generic_rpc_handlers((handlers,))
        names = service_names([service.full_name for service in SERVICES])
        self._health = HealthService(names, serving, clock)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._server.add_generic_rpc_handlers(reflection_handlers(ReflectionService(names)))
        self._port = 0
        self._watching: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._port

    async def bind(self, address: str) -> None:
        """Take the address. Raises RefusedToStart, with the system's reason, if that is not possible."""
        await check_free(address)
        try:
            self._port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise RefusedToStart(f"cannot listen for clients on {address}") from error

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        self._watching = asyncio.create_task(self._backlog.watch())

    async def stop(self, grace: float) -> None:
        """Take no new call, give those under way `grace` seconds."""
        self._health.stop()
        await self._server.stop(grace)
        if self._watching is not None:
            self._watching.cancel()


async def check_free(address: str) -> None:
    """Raise RefusedToStart with the system's reason; gRPC only says that it failed, and at length."""
    host, port = split_address(address, "listen_client")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise RefusedToStart(f"cannot listen for clients on {address}: {error.strerror or error}") from error
