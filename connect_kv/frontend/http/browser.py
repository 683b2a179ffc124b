"""Browsers that show the dashboard: who is logged in, and what their page may call.

Calls of the page come with a field that only it can know. Then, and only then, the cookie counts: a page of
somebody else cannot send that field, nor read it. What the dashboard may not do is refused here, whatever the
page offers.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message_factory import GetMessageClass

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import PEER_ADDRESS, Router, RpcFailed
from connect_kv.frontend.http import heads
from connect_kv.frontend.http.errors import refuse
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.files import Page, file_pages
from connect_kv.frontend.http.gateway import status_of_failed
from connect_kv.frontend.http.pages import not_found
from connect_kv.frontend.http.paths import OURS, targets
from connect_kv.frontend.http.port import DashboardGate
from connect_kv.json_mapping.decoding import BadJson, decode, readable

HEADER = b"x-connect-kv-dashboard"
"""Comes with every call of the page; its value is told by `_SESSION`."""
_SESSION, _LOGIN, _LOGOUT = (f"{OURS}dashboard/{name}" for name in ("session", "login", "logout"))
_AUTHENTICATE = "/v3/auth/authenticate"
_READS = (
    "/v3/kv/range",
    "/v3/watch",
    "/v3/lease/timetolive",
    "/v3/auth/user/get",
    "/v3/auth/role/get",
    *(f"{OURS}dashboard/{name}" for name in ("overview", "history", "leases", "queues", "query")),
    f"{OURS}machine/describe",
    f"{OURS}machine/status",
)
"""What the page may call: nothing in it changes anything."""
_WRITES = ("/v3/kv/txn", "/v3/lease/revoke", f"{OURS}machine/call")
"""And what else, where it may write."""
_MOST_LOGIN = 64 << 10
_FOREIGN = "connect-kv: this did not come from the dashboard's own page"
_OLD = "connect-kv: the dashboard's page is out of date: load it again"
_READ_ONLY = "connect-kv: the dashboard of this member may not do that (--dashboard read)"
_NOT_MINE = "connect-kv: the dashboard does not do that"
_SHOWS_WHO = (b"authorization", b"cookie", HEADER)


@dataclass(slots=True)
class Browsers:
    """The dashboard of one member, as browsers meet it."""

    gate: DashboardGate
    router: Router
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Of this life of the process: a page that has outlived it asks again."""

    def pages(self) -> Mapping[str, Page]:
        """By path: the files, and those of the session."""
        return {
            **file_pages(_missing),
            _SESSION: self._session,
            _LOGIN: self._login,
            _LOGOUT: self._logout,
        }

    def admit(self, exchange: Exchange) -> bool:
        """Let a call of the page through, as the user who is logged in; or answer why not."""
        exchange.always = b""
        path = exchange.target.decode("latin-1")
        if path in (_SESSION, _LOGIN, _LOGOUT):
            return True
        if exchange.method != "POST" or not _same_origin(exchange):
            return _refused(exchange, _FOREIGN)
        token = self._token(exchange)
        if not hmac.compare_digest(exchange.header(HEADER) or b"", self._mark(token).encode()):
            return _refused(exchange, _OLD)
        if path not in _READS and not (self.gate.writes and path in _WRITES):
            return _refused(exchange, _READ_ONLY if path in _WRITES else _NOT_MINE)
        kept = [
            (name, value)
            for name, value in exchange.headers
            if name not in _SHOWS_WHO and not name.startswith(b"grpc-metadata-")
        ]
        exchange.headers = [*kept, (b"authorization", token)] if token else kept
        return True

    # Of the session.

    async def _session(self, exchange: Exchange) -> None:
        """Who this is, what the page may do, and what it must send with every call."""
        if _from_the_page(exchange):
            exchange.respond(200, _told(), self._about(self._token(exchange)))

    async def _login(self, exchange: Exchange) -> None:
        """As ``/v3/auth/authenticate``; the token goes into a cookie that no script can read."""
        if not _from_the_page(exchange):
            return
        target = targets()[_AUTHENTICATE]
        try:
            text = readable(await exchange.body.whole())
            if len(text) > _MOST_LOGIN:
                raise TooLarge
            request = decode(target.method.input_type, text)[0]
            route = self.router.route(target.route)
            answer = await route.unary(request, [(PEER_ADDRESS, exchange.peer)])
        except (RpcFailed, Refused, BadJson, TooLarge, Crowded) as error:
            status = status_of_failed(error, _MOST_LOGIN)
            refuse(exchange, status.code, status.text)
            return
        parse: Callable[[bytes], Any] = GetMessageClass(target.method.output_type).FromString
        token: bytes = parse(answer).token.encode()
        exchange.respond(200, _told(self._cookie(exchange, token.decode())), self._about(token))

    async def _logout(self, exchange: Exchange) -> None:
        """The browser forgets the token."""
        if _from_the_page(exchange):
            gone = f"{self._cookie(exchange, '')}; Max-Age=0"
            exchange.respond(200, _told(gone), self._about(b""))

    def _about(self, token: bytes) -> bytes:
        gate = self.gate
        text = token.decode("latin-1")
        about = {
            "member": gate.member,
            "authentication": gate.enabled(),
            "user": gate.who(text) if text and gate.enabled() else "",
            "writes": gate.writes,
            "mark": self._mark(token),
        }
        return json.dumps(about).encode()

    def _mark(self, token: bytes) -> str:
        """What the page of who has that token sends with every call."""
        return hmac.new(self._secret, token, "sha256").hexdigest()

    @property
    def _name(self) -> str:
        """Of the cookie. Cookies do not know ports: two clusters of one host must not share it."""
        return f"connect-kv-{self.gate.cluster}"

    def _cookie(self, exchange: Exchange, token: str) -> str:
        secure = "; Secure" if exchange.secure else ""
        return f"{self._name}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _token(self, exchange: Exchange) -> bytes:
        wanted = self._name.encode()
        for name, value in exchange.headers:
            if name == b"cookie":
                for one in value.split(b";"):
                    key, _, held = one.strip().partition(b"=")
                    if key == wanted:
                        return held
        return b""


async def _missing(exchange: Exchange) -> None:
    not_found(exchange)


def _told(cookie: str = "") -> bytes:
    fields = (heads.JSON, ("Cache-Control", "no-store"), heads.NO_SNIFFING)
    return heads.written((*fields, ("Set-Cookie", cookie)) if cookie else fields)


def _from_the_page(exchange: Exchange) -> bool:
    """Whether it came from the dashboard's page; if not, it is answered."""
    exchange.always = b""
    if exchange.method == "POST" and exchange.header(HEADER) is not None and _same_origin(exchange):
        return True
    return _refused(exchange, _FOREIGN)


def _same_origin(exchange: Exchange) -> bool:
    """By what browsers say of a request and no script can: older ones only say the origin of a POST."""
    site = exchange.header(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    origin = (exchange.header(b"origin") or b"").decode("latin-1")
    try:
        found = urlsplit(origin).netloc
    except ValueError:
        return False
    return bool(found) and found.lower() == (exchange.header(b"host") or b"").decode("latin-1").lower()


def _refused(exchange: Exchange, text: str) -> bool:
    refuse(exchange, Code.PERMISSION_DENIED, text)
    return False
