"""The port clients call, served by the gRPC library: every service, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn
from urllib.parse import unquote

import grpc

from connect_kv.credentials import Credentials
from connect_kv.errors import RefusedToStart
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.calls import RECEIVE_MARGIN
from connect_kv.frontend.grpc.router import (
    CERTIFICATE_NAME,
    PEER_ADDRESS,
    CallKind,
    Metadata,
    MethodRoute,
    Router,
    RpcFailed,
)
from connect_kv.hosts import check_free
from connect_kv.services.status import Status
from connect_kv.trailers import MOST_REQUEST_METADATA

Context = grpc.aio.ServicerContext[Any, Any]
"""What the library hands a handler: read, write, metadata, abort."""

Unary = Callable[[bytes, Context], Awaitable[bytes]]
"""A handler of single calls."""

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MOST_PENDING = 16 * 1024
"""Calls the library keeps until they are taken. It cancels those beyond, without a reason."""
MOST_SERVED = 4096
"""Unary calls that were taken and have no answer; beyond it they are refused. What waits to be taken is not
counted: the library tells nobody."""


class GrpcioHandlers(grpc.GenericRpcHandler):
    """The routes in the library's form. Messages pass as bytes: the router decodes and encodes them."""

    def __init__(
        self, router: Router, credentials: Credentials | None = None, most_served: int = MOST_SERVED
    ) -> None:
        """`credentials`: those of the port. `most_served`: unary calls at a time."""
        self._router = router
        self._most_served = most_served
        self._serving = 0
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        """By the method's path; only of those that are served: a client can call any number of others."""
        self._metadata = _metadata if credentials is None else _Verified(credentials).metadata

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """What the library asks for every call."""
        path = handler_call_details.method
        known = self._handlers.get(path)
        if known is None:
            known = self._handler(self._router.route(path))
            if self._router.serves(path):
                self._handlers[path] = known
        return known

    def _handler(self, route: MethodRoute) -> grpc.RpcMethodHandler[Any, Any]:
        metadata = _addressed(self._metadata) if route.addressed else self._metadata
        if route.kind is CallKind.UNARY:
            return grpc.unary_unary_rpc_method_handler(self._unary(route, metadata))

        async def stream(_: object, context: Context) -> None:
            try:
                await route.stream(_GrpcioWire(context, metadata(context)))
            except RpcFailed as failed:
                await _abort(context, failed)

        # A stream of requests for server streams too: there is one, and the router reads it.
        return grpc.stream_stream_rpc_method_handler(stream)

    def _unary(self, route: MethodRoute, metadata: Callable[[Context], Metadata]) -> Unary:
        async def unary(request: bytes, context: Context) -> bytes:
            if route.overloaded is not None and self._serving >= self._most_served:
                await _abort(context, route.overloaded(_address(context)))
            self._serving += not route.waits
            try:
                return await route.unary(request, metadata(context))
            except RpcFailed as failed:
                await _abort(context, failed)
            finally:
                self._serving -= not route.waits

        return unary


class _Verified:
    """Who connected over TLS, added to what came with a call.

    The library verifies a chain and no more: what else is asked of a certificate is looked at here.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def metadata(self, context: Context) -> Metadata:
        """With the name in the client's certificate. Raises RpcFailed for one that is not let in."""
        sent = _metadata(context)
        shown = context.auth_context()
        certificate = next(iter(shown.get("x509_pem_cert", ())), None)
        if refusal := self._credentials.refusal(certificate):
            raise RpcFailed(Status(Code.PERMISSION_DENIED, f"connect-kv: {refusal}"))
        names = tuple(shown.get("x509_common_name", ()))
        return (*sent, (CERTIFICATE_NAME, names[0].decode(errors="replace"))) if names else sent


class _GrpcioWire:
    """A `router.Wire` over a call of the library."""

    def __init__(self, context: Context, metadata: Metadata) -> None:
        self._context = context
        self.metadata = metadata

    async def read(self) -> bytes | None:
        """The next message."""
        message = await self._context.read()
        return None if message is grpc.aio.EOF else message

    async def write(self, message: bytes) -> None:
        """Send a response."""
        await self._context.write(message)


def _metadata(context: Context) -> Metadata:
    sent = tuple(context.invocation_metadata() or ())
    # What is ours to say must not come from a client, and the library is no guard that we have tried.
    return tuple(one for one in sent if not one[0].startswith(":"))


def _addressed(metadata: Callable[[Context], Metadata]) -> Callable[[Context], Metadata]:
    """With where the call comes from."""

    def with_address(context: Context) -> Metadata:
        return (*metadata(context), (PEER_ADDRESS, _address(context)))

    return with_address


def _address(context: Context) -> str:
    family, _, address = unquote(context.peer()).partition(":")
    return address if family in ("ipv4", "ipv6") else ""


async def _abort(context: Context, failed: RpcFailed) -> NoReturn:
    status = failed.status
    await context.abort(_CODES[status.code], status.text, status.trailing)
    raise AssertionError("abort returned")


class GrpcioServer:
    """Listens for clients. Start it once, stop it once."""

    def __init__(
        self,
        router: Router,
        *,
        max_request_bytes: int,
        most_served: int = MOST_SERVED,
        credentials: Credentials | None = None,
    ) -> None:
        """`most_served`: unary calls at a time. `credentials`: for TLS."""
        self._credentials = credentials
        self._server = grpc.aio.server(
            options=(
                # Otherwise a second process binds the same port without an error and takes half the calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_request_bytes + RECEIVE_MARGIN),
                ("grpc.max_send_message_length", -1),
                # Between the two the library would refuse some calls and not others.
                ("grpc.max_metadata_size", MOST_REQUEST_METADATA),
                ("grpc.absolute_max_metadata_size", MOST_REQUEST_METADATA),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.server.max_pending_requests", _MOST_PENDING),
                ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING),
            )
        )
        self._server.add_generic_rpc_handlers((GrpcioHandlers(router, credentials, most_served),))
        self._port = 0

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._port

    async def bind(self, address: str) -> None:
        """Take the address. Raises RefusedToStart, with the system's reason, if that is not possible."""
        await asyncio.to_thread(check_free, "clients", address)
        try:
            if self._credentials is None:
                self._port = self._server.add_insecure_port(address)
            else:
                self._port = self._server.add_secure_port(address, self._credentials.grpc_server())
        except RuntimeError as error:
            raise RefusedToStart(f"cannot listen for clients on {address}") from error

    async def start(self) -> None:
        """Serve."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no new call, give those under way `grace` seconds."""
        await self._server.stop(grace)
