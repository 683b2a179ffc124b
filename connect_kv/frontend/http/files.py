"""The dashboard's files, as they lie in the package: read once, told apart by what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources

from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Exchange

Page = Callable[[Exchange], Awaitable[None]]

PREFIX = "/dashboard/"
_PAGE = "index.html"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing from elsewhere, nothing written into the page: what a key or a value holds stays text."""
_ALWAYS = (
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    heads.NO_SNIFFING,
)


def files() -> Mapping[str, tuple[str, bytes]]:
    """By name: the type and what is in it."""
    found: dict[str, tuple[str, bytes]] = {}
    for one in resources.files("connect_kv.frontend.http").joinpath("web").iterdir():
        kind = _KINDS.get(one.name[one.name.rfind(".") :])
        if kind is not None:
            found[one.name] = (kind, one.read_bytes())
    return found


def file_pages(missing: Page) -> Mapping[str, Page]:
    """By path. `missing` answers who asks for ``/`` and wants no page: as etcd does."""
    found = files()
    pages = {PREFIX + name: _file(kind, body) for name, (kind, body) in found.items()}
    page = pages.pop(PREFIX + _PAGE)
    pages[PREFIX] = page

    async def root(exchange: Exchange) -> None:
        """For a browser; whoever else asks for ``/`` is told what etcd tells them."""
        wanted = exchange.method in ("GET", "HEAD") and b"text/html" in (exchange.header(b"accept") or b"")
        await (page if wanted else missing)(exchange)

    pages["/"] = root
    return pages


def _file(kind: str, body: bytes) -> Page:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    same = heads.constant(("ETag", tag), ("Vary", "Accept"), *_ALWAYS)
    whole = heads.constant(("Content-Type", kind), ("ETag", tag), ("Vary", "Accept"), *_ALWAYS)
    refused = heads.constant(("Allow", "GET, HEAD"), heads.TEXT, heads.NO_SNIFFING)

    async def serve(exchange: Exchange) -> None:
        exchange.always = b""  # nobody else's page needs to read it
        if exchange.method not in ("GET", "HEAD"):
            exchange.respond(405, refused, b"Method Not Allowed\n")
        elif tag.encode() in (exchange.header(b"if-none-match") or b""):
            exchange.respond(304, same)
        else:
            exchange.respond(200, whole, body)

    return serve
