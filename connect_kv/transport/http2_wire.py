"""Members speak gRPC over HTTP/2 of our own, on both sides."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

from connect_kv.credentials import Credentials
from connect_kv.hosts import split_address
from connect_kv.http2.calls import Call
from connect_kv.http2.calls import Peer as Http2Peer
from connect_kv.http2.channel import Channel
from connect_kv.http2.listener import Http2Server
from connect_kv.http2.metadata import StatusError
from connect_kv.http2.tasks import ServerStream
from connect_kv.transport.limits import TransportLimits, http2_limits
from connect_kv.transport.wire import Answer, PeerCaller, Serve

_ALPN = ["h2"]


class Http2Wire:
    """One member's; implements `transport.wire.PeerWire`."""

    def __init__(self, limits: TransportLimits, credentials: Credentials | None = None) -> None:
        """`credentials`: this member's certificate, and who signs those of members; None: no TLS."""
        self.limits = limits
        self._credentials = credentials
        self._serving = http2_limits(limits)
        self._dialling = replace(self._serving, handshake=limits.reconnect_most)
        self._server: Http2Server | None = None
        if credentials is not None:
            credentials.client_context(_ALPN)  # goes on should a file be broken before the first dial

    async def open(self, address: str) -> Channel:
        """Connect; over TLS by the files as they are now, and to who has a certificate for that host.

        Each address of a name is tried in turn. Raises OSError or StatusError, of the last one tried.
        """
        name, _, given = address.rpartition(":")
        host, port = name.strip("[]"), int(given)
        context = None if self._credentials is None else self._credentials.client_context(_ALPN)
        failure: OSError | StatusError = ConnectionError(f"{host} has no address")
        for found in await _addresses(host, port):
            try:
                return await self._connect(found, port, context, host)
            except (OSError, StatusError) as error:
                failure = error
        raise failure

    async def _connect(self, found: str, port: int, context: ssl.SSLContext | None, host: str) -> Channel:
        try:
            return await Channel.connect(found, port, context, limits=self._dialling, name=host)
        except TimeoutError:
            raise TimeoutError(f"{host}:{port}: no answer within {self._dialling.handshake:g} s") from None

    async def listen(self, address: str, unary: Mapping[str, Answer], streams: Mapping[str, Serve]) -> int:
        """Over TLS each handshake goes by the files as they are then, and demands a certificate."""
        host, port = split_address(address)
        self._server = Http2Server(
            {},
            {path: partial(_answer, answer) for path, answer in unary.items()},
            {path: partial(_serve, serve) for path, serve in streams.items()},
            limits=self._serving,
        )
        context = None if self._credentials is None else self._credentials.server_context(_ALPN)
        return await self._server.listen(host, port, context)

    async def stop(self) -> None:
        """End what is being served, and listen no more."""
        if self._server is not None:
            await self._server.stop(0)


async def _addresses(host: str, port: int) -> list[str]:
    """Those of a name, in the order of the system's resolver, asked anew each time: who restarts elsewhere
    keeps only the name. Raises OSError.
    """
    try:
        return [str(ip_address(host))]
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _caller(peer: Http2Peer) -> PeerCaller:
    return PeerCaller(peer.address, peer.certificate)


async def _answer(answer: Answer, call: Call) -> bytes:
    return await answer(call.message, _caller(call.peer))


async def _serve(serve: Serve, stream: ServerStream) -> None:
    await serve(stream, _caller(stream.call.peer))
