"""Health, version and metrics over HTTP, for probes and dashboards; no client API here."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from connect_kv import metrics
from connect_kv.credentials import Credentials
from connect_kv.frontend.http.port import Answers, Check

logger = logging.getLogger(__name__)

_TELL_AGAIN_SECONDS = 60.0
_TOLD_HOSTS = 1000


class HttpServer:
    """GET /health /livez /readyz (and ``/readyz/<check>``) /version, and /metrics by any method.

    As in etcd: other methods are refused with 405, HEAD too, and what is not here with 404.
    """

    def __init__(self, answers: Answers, credentials: Credentials | None = None) -> None:
        """`credentials`: for TLS; what they ask of a client's certificate is asked of every request."""
        self._answers = answers
        self._credentials = credentials
        self._runner: web.AppRunner | None = None
        self.server: web.Server
        """Makes a protocol for a connection; once started."""

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Answer what comes to these, which listen already, and over what `server` makes."""
        credentials = self._credentials
        app = web.Application(middlewares=() if credentials is None else (_admission(credentials),))
        gets: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
            "/health": self._get_health,
            "/version": self._get_version,
        }
        for name, checks in (("/livez", self._answers.live), ("/readyz", self._answers.ready)):
            gets[name] = gets[f"{name}/{{check}}"] = _probe(checks)
        for path, get in gets.items():
            app.router.add_get(path, get, allow_head=False)
        app.router.add_route("*", "/metrics", self._get_metrics)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=1.0, logger=_Log()
        )
        await self._runner.setup()
        assert self._runner.server is not None
        self.server = self._runner.server
        for one in sockets:
            context = None if credentials is None else credentials.server_context(["http/1.1"])
            await web.SockSite(self._runner, one, ssl_context=context).start()

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get_health(self, request: web.Request) -> web.Response:
        serializable = request.query.get("serializable") == "true"
        reason = await self._answers.health(serializable, frozenset(request.query.getall("exclude", [])))
        body = {"health": "true" if reason is None else "false", "reason": reason or ""}
        # Text, as etcd's, though it is JSON: probes may compare the type.
        return web.Response(text=_json(body), status=200 if reason is None else 503)

    async def _get_version(self, request: web.Request) -> web.Response:
        body = _json(self._answers.version).encode()
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._answers.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _admission(credentials: Credentials) -> Middleware:
    """Refuses with 403 whom `credentials` do not let in; the handshake has verified the chain."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        found = request.get_extra_info("ssl_object")
        if refusal := credentials.refusal(None if found is None else found.getpeercert(True)):
            raise web.HTTPForbidden(text=refusal + "\n")
        return await handler(request)

    return admit


def _json(body: Mapping[str, str]) -> str:
    return json.dumps(dict(body), separators=(",", ":"))


def _probe(checks: Mapping[str, Check]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def get(request: web.Request) -> web.Response:
        chosen = request.match_info.get("check")
        if chosen is not None and chosen not in checks:
            raise web.HTTPNotFound
        excluded = set(request.query.getall("exclude", []))
        lines, failed = [], False
        for name, check in checks.items():
            if name in excluded or chosen not in (None, name):
                continue
            reason = await check()
            failed = failed or reason is not None
            lines.append(f"[+]{name} ok" if reason is None else f"[-]{name} failed: {reason}")
        lines = lines if failed or "verbose" in request.query else []
        lines.append("" if failed else "ok")
        return web.Response(text="\n".join(lines) + "\n", status=503 if failed else 200)

    return get


class _Log(logging.LoggerAdapter[logging.Logger]):
    """The library's log: what came that was no HTTP is one line, at most once a minute for each host."""

    def __init__(self) -> None:
        super().__init__(logger)
        self._told: dict[str, float] = {}

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        """How the library tells of a request that failed."""
        error = kwargs.get("exc_info")
        if not isinstance(error, HttpProcessingError):
            super().exception(msg, *args, **kwargs)
            return
        host = str(args[0]) if args else "unknown"
        now = time.monotonic()
        if now - self._told.get(host, -_TELL_AGAIN_SECONDS) < _TELL_AGAIN_SECONDS:
            return
        if len(self._told) >= _TOLD_HOSTS:
            self._told.clear()
        self._told[host] = now
        grpc = "PRI" in error.message
        reason = "gRPC: clients have another address" if grpc else error.message.split("\n", 1)[0].strip()
        logger.warning(
            "no HTTP came to the port for health and metrics", extra={"host": host, "reason": reason}
        )
