"""Which page answers a request: origins, names of hosts, paths; as etcd's and Go's servers have it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, unquote_to_bytes

from connect_kv.frontend.http import heads
from connect_kv.frontend.http.browser import HEADER, Browsers
from connect_kv.frontend.http.connection import Take
from connect_kv.frontend.http.exchange import Exchange
from connect_kv.frontend.http.gateway import Gateway
from connect_kv.frontend.http.pages import not_found

Page = Callable[[Exchange], Awaitable[None]]

_UNUSUAL = frozenset({b"grpc-timeout", b"expect", b"upgrade", HEADER})
"""Header fields of requests that have a task."""
_BAD_ESCAPE = re.compile(rb"%(?![0-9a-fA-F]{2})")
_TEXT = heads.constant(heads.TEXT)
_TOLD = heads.constant(heads.TEXT, heads.NO_SNIFFING)
_ABSOLUTE = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)
_MISDIRECTED = """
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. connect-kv serve --host-whitelist {name!r}

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAccess:
    """From where a request may come."""

    origins: frozenset[str] = frozenset({"*"})
    """Whose pages may read answers; ``*`` among them: all."""
    hosts: frozenset[str] = frozenset({"*"})
    """Names in ``Host`` that are answered over plain HTTP; ``*`` among them: all."""


class Site:
    """Serves every request of a port. `pages` by their exact path."""

    def __init__(
        self,
        pages: Mapping[str, Page],
        access: SiteAccess,
        gateway: Gateway | None = None,
        browsers: Browsers | None = None,
    ) -> None:
        """`gateway`, `browsers`: None, where the port has none."""
        self._pages = {**pages, **({} if gateway is None else gateway.pages())}
        if browsers is not None:
            self._pages |= browsers.pages()
        self._browsers = browsers
        self._by_target = {path.encode(): page for path, page in self._pages.items()}
        self._direct = {} if gateway is None else gateway.direct()
        self._gateway = gateway
        self._any_origin = _allowing("*") if "*" in access.origins else None
        self._origins = {origin.encode(): _allowing(origin) for origin in access.origins}
        self._hosts = None if "*" in access.hosts else {host.encode() for host in access.hosts}

    def direct(self, exchange: Exchange) -> Take | None:
        """Who answers it without a task: the gateway, where it is asked in the usual way."""
        page = self._direct.get(exchange.target)
        if page is None or exchange.method != "POST" or self._hosts is not None:
            return None
        hosts = 0
        for name, _ in exchange.headers:
            if name == b"host":
                hosts += 1
            elif name in _UNUSUAL:
                return None
        if hosts != 1 or self._any_origin is None:
            return None
        exchange.always = self._any_origin
        return page

    async def serve(self, exchange: Exchange) -> None:
        """Answer one request."""
        hosts = [value for name, value in exchange.headers if name == b"host"]
        if len(hosts) != 1 and (hosts or exchange.minor):
            exchange.keep_alive = False
            exchange.respond(400, _TEXT, b"400 Bad Request: missing required Host header")
            return
        if self._hosts is not None and not exchange.secure and _name(hosts) not in self._hosts:
            text = _MISDIRECTED.format(name=_name(hosts).decode("latin-1"))
            exchange.respond(421, _TOLD, text.encode() + b"\n")
            return
        if self._any_origin is not None:
            exchange.always = self._any_origin
        else:
            exchange.always = self._origins.get(exchange.header(b"origin") or b"", b"")
        if exchange.method == "OPTIONS":
            exchange.respond(200, b"")
            return
        browsers = self._browsers
        if browsers is not None and exchange.header(HEADER) is not None and not browsers.admit(exchange):
            return
        page = self._by_target.get(exchange.target)
        await (self._look(exchange) if page is None else page(exchange))

    async def _look(self, exchange: Exchange) -> None:
        """By the path as it is meant."""
        target, mark, asked = _ABSOLUTE.sub(b"", exchange.target).partition(b"?")
        if not target.startswith(b"/") or _BAD_ESCAPE.search(target):
            exchange.keep_alive = False
            exchange.respond(400, _TEXT, b"400 Bad Request")
            return
        path = unquote_to_bytes(target).decode("utf-8", "surrogateescape")
        if path.startswith("/v3beta/"):
            path = "/v3/" + path.removeprefix("/v3beta/")
        gateway = self._gateway
        clean = _clean(path)
        if clean == "/v3" and gateway is not None:
            clean = "/v3/"
        if clean != path:
            _redirect(exchange, quote(clean, errors="surrogateescape") + (mark + asked).decode("latin-1"))
        elif (page := self._pages.get(path)) is not None:
            await page(exchange)
        elif gateway is not None and gateway.is_below(path):
            await gateway.missing(exchange)
        else:
            not_found(exchange)


def _allowing(origin: str) -> bytes:
    return heads.written(
        (
            ("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE"),
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Headers", "accept, content-type, authorization"),
        )
    )


def _name(hosts: list[bytes]) -> bytes:
    """Without the port."""
    host = hosts[0] if hosts else b""
    name, colon, port = host.rpartition(b":")
    return (name if colon and port.isdigit() else host).strip(b"[]")


def _clean(path: str) -> str:
    """Without empty parts, ``.`` and ``..``, as Go's path.Clean; a slash at the end stays."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    clean = "/" + "/".join(parts)
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(exchange: Exchange, location: str) -> None:
    where = ("Location", location)
    if exchange.method in ("GET", "HEAD"):
        fields = heads.written((where, ("Content-Type", "text/html; charset=utf-8")))
        text = f'<a href="{escape(location)}">Moved Permanently</a>.\n\n'
        exchange.respond(301, fields, text.encode() if exchange.method == "GET" else b"")
    else:
        exchange.respond(301, heads.written((where,)))
