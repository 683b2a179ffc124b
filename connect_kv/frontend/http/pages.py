"""What probes and dashboards get: /health, /livez, /readyz, /version, /metrics, /debug/vars."""

from __future__ import annotations

import gzip
import json
import resource
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs

from connect_kv import metrics
from connect_kv.frontend.http import heads
from connect_kv.frontend.http.exchange import Exchange
from connect_kv.frontend.http.port import Answers, Check

Page = Callable[[Exchange], Awaitable[None]]

_TEXT = heads.constant(heads.TEXT)
_TOLD = heads.constant(heads.TEXT, heads.NO_SNIFFING)
_QUICKLY = 1
"""Level of compression."""
_JSON = heads.constant(heads.JSON)


def pages(answers: Answers) -> Mapping[str, Page]:
    """By path. All but /metrics take GET alone: as in etcd, HEAD too is refused with 405."""
    found: dict[str, Page] = {"/metrics": _metrics(answers)}
    gets: dict[str, Page] = {
        "/health": _health(answers),
        "/version": _version(answers),
        "/debug/vars": _variables(answers),
    }
    for name, checks in (("/livez", answers.live), ("/readyz", answers.ready)):
        gets[name] = _probe(checks, None)
        for check in checks:
            gets[f"{name}/{check}"] = _probe(checks, check)
    for path, page in gets.items():
        found[path] = _only_get(page)
    return found


def not_found(exchange: Exchange) -> None:
    """In the words of Go's server."""
    exchange.respond(404, _TOLD, b"404 page not found\n")


def _only_get(page: Page) -> Page:
    async def serve(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await page(exchange)
        else:
            fields = heads.constant(("Allow", "GET"), heads.TEXT, heads.NO_SNIFFING)
            exchange.respond(405, fields, b"Method Not Allowed\n")

    return serve


def query(exchange: Exchange) -> Mapping[str, list[str]]:
    """What stands behind the question mark."""
    _, _, text = exchange.target.decode("latin-1").partition("?")
    return parse_qs(text, keep_blank_values=True, max_num_fields=100)


def _health(answers: Answers) -> Page:
    async def serve(exchange: Exchange) -> None:
        asked = query(exchange)
        serializable = asked.get("serializable", [""])[0] == "true"
        reason = await answers.health(serializable, frozenset(asked.get("exclude", [])))
        body = _compact({"health": "true" if reason is None else "false", "reason": reason or ""})
        # Text, as etcd's, though it is JSON: probes may compare the type.
        if reason is None:
            exchange.respond(200, _TEXT, body)
        else:
            exchange.respond(503, _TOLD, body + b"\n")

    return serve


def _version(answers: Answers) -> Page:
    async def serve(exchange: Exchange) -> None:
        exchange.respond(200, _JSON, _compact(answers.version))

    return serve


def _metrics(answers: Answers) -> Page:
    kind = ("Content-Type", metrics.CONTENT_TYPE)
    plain, packed = heads.constant(kind), heads.constant(kind, ("Content-Encoding", "gzip"))

    async def serve(exchange: Exchange) -> None:
        if exchange.method == "HEAD":
            exchange.respond(200, plain)
            return
        text = answers.metrics.text()
        if b"gzip" in (exchange.header(b"accept-encoding") or b""):
            await _send(exchange, packed, gzip.compress(text, _QUICKLY))
        else:
            await _send(exchange, plain, text)

    return serve


def _variables(answers: Answers) -> Page:
    fields = heads.constant(("Content-Type", "application/json; charset=utf-8"))

    async def serve(exchange: Exchange) -> None:
        """Of etcd's, those that mean something here; the arguments of the process are not for all."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        body = {"file_descriptor_limit": limit, "raft.status": dict(answers.raft_status())}
        await _send(exchange, fields, json.dumps(body, indent=1).encode())

    return serve


def _probe(checks: Mapping[str, Check], chosen: str | None) -> Page:
    async def serve(exchange: Exchange) -> None:
        asked = query(exchange)
        excluded = set(asked.get("exclude", []))
        lines, failed = [], False
        for name, check in checks.items():
            if name in excluded or chosen not in (None, name):
                continue
            reason = await check()
            failed = failed or reason is not None
            lines.append(f"[+]{name} ok" if reason is None else f"[-]{name} failed: {reason}")
        lines = lines if failed or "verbose" in asked else []
        lines.append("" if failed else "ok")
        exchange.respond(503 if failed else 200, _TOLD, ("\n".join(lines) + "\n").encode())

    return serve


async def _send(exchange: Exchange, fields: bytes, body: bytes) -> None:
    """In chunks, as etcd sends what it makes while it sends it."""
    exchange.begin(200, fields)
    await exchange.send(body)
    exchange.finish()


def _compact(body: Mapping[str, str]) -> bytes:
    return json.dumps(dict(body), separators=(",", ":")).encode()
