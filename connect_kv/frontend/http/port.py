"""HTTP of a member: on a port of its own, taken at once and served later, and on the clients' port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connect_kv.credentials import Credentials
from connect_kv.metrics import Metrics

if TYPE_CHECKING:
    from connect_kv.frontend.grpc.router import Router
    from connect_kv.frontend.http.limits import Limited
    from connect_kv.frontend.http.over_http2 import Http2Requests
    from connect_kv.frontend.http.server import HttpServer
    from connect_kv.frontend.http.site import Site
    from connect_kv.http2.calls import Call

Check = Callable[[], Awaitable[str | None]]
"""None if all is well, otherwise why not."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where what is asked for comes from."""

    health: Callable[[bool, frozenset[str]], Awaitable[str | None]]
    """Given (serializable, alarms not to count): the reason why this member is not healthy."""
    live: Mapping[str, Check]
    ready: Mapping[str, Check]
    version: Mapping[str, str]
    metrics: Metrics
    raft_status: Callable[[], Mapping[str, object]] = dict
    """What /debug/vars says of this member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardGate:
    """What is told of the dashboard."""

    writes: bool
    """Whether it may change anything."""
    cluster: str
    """The cluster's id, in hexadecimal."""
    member: str
    """The member's name."""
    enabled: Callable[[], bool]
    """Whether users must log in."""
    who: Callable[[str], str]
    """The user of a token; empty for one that is not good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What is told of the JSON gateway, and of who may use HTTP at all."""

    router: Router
    most_message: int
    """Bytes of an encoded request."""
    enabled: bool = True
    on_own_port: bool = True
    """Whether the port for HTTP has the gateway; not where that asks less of clients than theirs does."""
    origins: frozenset[str] = frozenset({"*"})
    hosts: frozenset[str] = frozenset({"*"})
    limited: Limited | None = None
    """Told of what is refused because it is too much."""
    dashboard: DashboardGate | None = None
    """None: there is none. It is where the gateway is."""


@dataclass(slots=True)
class _Serving:
    server: HttpServer
    own: Site
    clients: Site
    requests: Http2Requests | None = None
    """Over HTTP/2."""
    sockets: list[socket.socket] = field(default_factory=list)


class HttpPort:
    """Listens, and later serves. Whoever connects in between waits for the answer."""

    def __init__(
        self, answers: Answers, credentials: Credentials | None = None, gate: Gate | None = None
    ) -> None:
        """`credentials`: for TLS, of the port for HTTP; `gate`: None, for probes alone."""
        self._answers = answers
        self._credentials = credentials
        self._gate = gate
        self._sockets: list[socket.socket] = []
        self._serving: _Serving | None = None

    @property
    def port(self) -> int:
        """The port listened on; 0 if none is."""
        return int(self._sockets[0].getsockname()[1]) if self._sockets else 0

    async def bind(self, host: str, port: int) -> None:
        """Listen on every address of that host. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((one[0], one[4][:2]) for one in found):
            self._sockets.append(socket.create_server(address, family=family))

    async def serve(self) -> None:
        """Answer, from now on, if there is a port."""
        if self._sockets:
            serving = self._load()
            await serving.server.listen(
                self._sockets, serving.own.serve, self._credentials, serving.own.direct
            )

    def protocol(self, credentials: Credentials | None = None) -> asyncio.Protocol:
        """For a connection to the clients' port that speaks HTTP/1; `credentials`: those of that port."""
        serving = self._load()
        return serving.server.protocol(serving.clients.serve, credentials, serving.clients.direct)

    def request(self, secure: bool, call: Call) -> None:
        """Answer one that came over HTTP/2 to the clients' port; `secure`: that speaks TLS."""
        serving = self._load()
        if serving.requests is None:
            from connect_kv.frontend.http.over_http2 import Http2Requests

            clients = serving.clients
            serving.requests = Http2Requests(serving.server, clients.serve, clients.direct, secure=secure)
        serving.requests.begin(call)

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._serving is not None:
            await self._serving.server.stop()
        for one in self._sockets:
            one.close()

    def _load(self) -> _Serving:
        """Made, and what it needs imported, when it is first needed: clients and peers need none of it."""
        if self._serving is None:
            from connect_kv.frontend.http.browser import Browsers
            from connect_kv.frontend.http.gateway import Gateway
            from connect_kv.frontend.http.limits import HttpLimits
            from connect_kv.frontend.http.openapi import PATH, Document
            from connect_kv.frontend.http.pages import pages
            from connect_kv.frontend.http.server import HttpServer
            from connect_kv.frontend.http.site import Site, SiteAccess

            limits, gate, found = HttpLimits(), self._gate, dict(pages(self._answers))
            access, gateway, browsers = SiteAccess(), None, None
            limited = None if gate is None else gate.limited
            if gate is not None:
                access = SiteAccess(origins=gate.origins, hosts=gate.hosts)
                if gate.enabled:
                    found[PATH] = Document(self._answers.version.get("connect_kv", "")).serve
                    most_body = max(limits.body, 8 * gate.most_message)
                    gateway = Gateway(
                        gate.router, most_message=gate.most_message, most_body=most_body, limited=limited
                    )
                    if gate.dashboard is not None:
                        browsers = Browsers(gate.dashboard, gate.router)
            clients = Site(found, access, gateway, browsers)
            own = clients if gate is not None and gate.on_own_port else Site(found, access)
            self._serving = _Serving(HttpServer(limits, limited), own, clients)
        return self._serving
