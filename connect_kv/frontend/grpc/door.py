"""The port clients call, served by our own HTTP/2: every service, health, reflection, and HTTP beside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from dataclasses import replace
from typing import Final

from connect_kv.certificates import BadCertificate, presented
from connect_kv.config import split_address
from connect_kv.credentials import Credentials
from connect_kv.errors import RefusedToStart
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.calls import RECEIVE_MARGIN, Metadata, RpcFailed
from connect_kv.frontend.grpc.router import CERTIFICATE_NAME, PEER_ADDRESS, CallKind, MethodRoute, Router
from connect_kv.http2.calls import Call, Peer
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import ALPN, Http2Server
from connect_kv.http2.metadata import StatusError
from connect_kv.http2.tasks import Handle, Serve, ServerStream
from connect_kv.trailers import MOST_REQUEST_METADATA

TurnedAway = Callable[[str, str | None, str], None]
"""Told the client's address, the CommonName of its certificate if it has one, and the reason."""
_LOOK_SECONDS: Final = 1.0
"""From new files being taken over to a look at who is connected."""
Limited = Callable[[str, str, Code, str], None]
"""Told the client's address, which method it called or nothing of a connection, the code and the reason."""


class DoorServer:
    """Listens for clients. Start it once, stop it once."""

    def __init__(
        self,
        router: Router,
        *,
        max_request_bytes: int,
        credentials: Credentials | None = None,
        http1: Callable[[], asyncio.Protocol] | None = None,
        requests: Callable[[Call], None] | None = None,
        limits: Limits | None = None,
        turned_away: TurnedAway | None = None,
        limited: Limited | None = None,
    ) -> None:
        """`credentials`: for TLS. `http1` makes a protocol for who speaks HTTP/1.1 on this port;
        `requests` is given what comes over HTTP/2 and is no call of gRPC.

        `turned_away` is told of each connection whose certificate is not let in, `limited` of what is refused
        because it is too much, before anybody else has seen it.
        """
        self._credentials = credentials
        self._reloads = 0 if credentials is None else credentials.reloads
        self._looking: asyncio.TimerHandle | None = None
        unary: dict[str, Callable[[list[Call]], None]] = {}
        tasks: dict[str, Handle] = {}
        streams: dict[str, Serve] = {}
        refuse: dict[str, Callable[[Call], None]] = {}
        for path, route in router.routes.items():
            if route.kind is not CallKind.UNARY:
                streams[path] = _serving(route)
            elif route.batch is not None:
                unary[path] = route.batch
            else:
                tasks[path] = _handling(route)
            if route.overloaded is not None:
                refuse[path] = _refusing(route.overloaded)
        self._server = Http2Server(
            unary,
            tasks,
            streams,
            limits=replace(
                limits or Limits(),
                message=max_request_bytes + RECEIVE_MARGIN,
                header_list=MOST_REQUEST_METADATA,
            ),
            http1=http1,
            requests=requests,
            meet=None if credentials is None else _Verified(credentials, turned_away).meet,
            more=_more({path.encode() for path, route in router.routes.items() if route.addressed}),
            refuse=refuse,
            waiting=[path for path, route in router.routes.items() if route.waits],
            limited=None if limited is None else _telling(limited),
        )
        self._port = 0

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.sockets)

    @property
    def refused_connections(self) -> int:
        """How many were told to go away, for there were too many."""
        return self._server.refused_connections

    @property
    def turned_away(self) -> int:
        """How many were closed before they had shown who they are, to make room for others."""
        return self._server.arrivals.turned_away

    @property
    def port(self) -> int:
        """The port listened on."""
        return self._port

    async def bind(self, address: str) -> None:
        """Take the address; who connects waits. Raises RefusedToStart, with the system's reason."""
        try:
            self._port = await self._server.bind(*split_address(address, "listen_client"))
        except OSError as error:
            reason = error.strerror or str(error)
            raise RefusedToStart(f"cannot listen for clients on {address}: {reason}") from error

    async def start(self) -> None:
        """Serve."""
        await self._server.start(
            None if self._credentials is None else self._credentials.server_context(ALPN)
        )
        if self._credentials is not None:
            self._look(self._credentials)

    def _look(self, credentials: Credentials) -> None:
        """Whoever was let in may be revoked, once the files have changed."""
        if credentials.reloads != self._reloads:
            self._reloads = credentials.reloads
            self._server.meet_again()
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look, credentials)

    async def stop(self, grace: float) -> None:
        """Take no new call, give those under way `grace` seconds."""
        if self._looking is not None:
            self._looking.cancel()
        await self._server.stop(grace)


class _Verified:
    """Who connected over TLS, added to what comes with each call.

    The handshake verifies a chain and no more: what else is asked of a certificate is looked at here.
    """

    def __init__(self, credentials: Credentials, turned_away: TurnedAway | None) -> None:
        self._credentials = credentials
        self._turned_away = turned_away

    def meet(self, peer: Peer) -> Peer:
        """With the name in the client's certificate, or the reason why that is not let in."""
        if refusal := self._credentials.refusal(peer.certificate):
            if self._turned_away is not None:
                self._turned_away(peer.address, _name_in(peer.certificate), refusal)
            return replace(peer, refusal=StatusError(Code.PERMISSION_DENIED, f"connect-kv: {refusal}"))
        name = None if peer.certificate is None else presented(peer.certificate).common_name
        return replace(peer, name=name or "")


def _name_in(certificate: bytes | None) -> str | None:
    with suppress(BadCertificate):  # that may be why it is not let in
        return None if certificate is None else presented(certificate).common_name
    return None


def _more(addressed: Set[bytes]) -> Callable[[Call], Metadata]:
    """What the router is told of who calls, and where from on those routes."""

    def more(call: Call) -> Metadata:
        peer, route = call.peer, call.head.route
        named = ((CERTIFICATE_NAME, peer.name),) if peer.name else ()
        if route is None or route.path not in addressed:
            return named
        return (*named, (PEER_ADDRESS, peer.address))

    return more


def _handling(route: MethodRoute) -> Callable[[Call], Awaitable[bytes]]:
    async def handle(call: Call) -> bytes:
        try:
            return await route.unary(call.message, call.metadata)
        except RpcFailed as failed:
            raise _status(failed) from failed

    return handle


def _serving(route: MethodRoute) -> Serve:
    async def serve(stream: ServerStream) -> None:
        try:
            await route.stream(_DoorWire(stream))
        except RpcFailed as failed:
            raise _status(failed) from failed

    return serve


def _refusing(overloaded: Callable[[str], RpcFailed]) -> Callable[[Call], None]:
    def refuse(call: Call) -> None:
        status = overloaded(call.peer.address).status
        call.fail(status.code, status.text, status.trailing)

    return refuse


def _telling(limited: Limited) -> Callable[[str, bytes, int, str], None]:
    def tell(address: str, path: bytes, code: int, reason: str) -> None:
        service, _, method = path.decode("latin-1").rpartition(".")[2].partition("/")
        limited(address, f"{service}.{method}" if method else "", Code(code), reason)

    return tell


def _status(failed: RpcFailed) -> StatusError:
    return StatusError(failed.status.code, failed.status.text, failed.status.trailing)


class _DoorWire:
    """A `router.Wire` over a stream."""

    def __init__(self, stream: ServerStream) -> None:
        self.metadata: Metadata = stream.call.metadata
        self.read = stream.read
        self.write = stream.write
