"""Servers of our own on loopback, and certificates for them."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web

from connect_kv.http2.calls import Call
from connect_kv.http2.limits import Limits
from connect_kv.http2.listener import ALPN, Http2Server
from connect_kv.http2.metadata import StatusError
from connect_kv.http2.tasks import ServerStream
from tests.etcd import skip_loudly


class Service:
    """Methods that tests need, and what came."""

    def __init__(self) -> None:
        self.batches: list[list[Call]] = []
        self.held: list[Call] = []
        self.begun = self.over = self.cancelled = 0
        """Of the tasks of `slow`: over are also the cancelled ones."""
        self.hold = asyncio.Event()
        """Batches are kept unanswered while it is set."""
        self.servers: list[Http2Server] = []

    def echo(self, calls: list[Call]) -> None:
        self.batches.append(calls)
        if self.hold.is_set():
            self.held += calls
            return
        for call in calls:
            call.reply(call.message)

    def fail(self, calls: list[Call]) -> None:
        for call in calls:
            call.fail(9, "größer als 50%", [("reason", "size"), ("detail-bin", b"\0\xff")])

    def broken(self, calls: list[Call]) -> None:
        raise RuntimeError("a bug")

    async def slow(self, call: Call) -> bytes:
        """Answers once nobody holds it."""
        self.begun += 1
        try:
            await until(lambda: not self.hold.is_set(), 60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.over += 1
        return call.message

    async def size(self, call: Call) -> bytes:
        """As many bytes as the request says."""
        return b"v" * int(call.message)

    async def nothing(self, call: Call) -> bytes:
        return None  # type: ignore[return-value]

    async def refuse(self, call: Call) -> bytes:
        raise StatusError(3, "no", [("x", "y")])

    async def both(self, stream: ServerStream) -> None:
        try:
            async for message in stream:
                await stream.write(message)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def one_then_fail(self, stream: ServerStream) -> None:
        await stream.read()
        await stream.write(b"one")
        raise StatusError(5, "then none", [("x", "y")])

    async def endless(self, stream: ServerStream) -> None:
        try:
            while True:
                await stream.write(b"v" * 1000)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def server(
        self, limits: Limits | None = None, http1: Callable[[], asyncio.Protocol] | None = None
    ) -> Http2Server:
        return Http2Server(
            {"/t.T/Echo": self.echo, "/t.T/Fail": self.fail, "/t.T/Broken": self.broken},
            {
                "/t.T/Slow": self.slow,
                "/t.T/Refuse": self.refuse,
                "/t.T/Nothing": self.nothing,
                "/t.T/Size": self.size,
            },
            {"/t.T/Both": self.both, "/t.T/OneThenFail": self.one_then_fail, "/t.T/Endless": self.endless},
            limits=limits,
            http1=http1,
        )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Servers run on uvloop; what is about sockets is tried on both."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.stem.startswith(("test_listener_", "test_channel")):
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    """Its servers and those of a test are stopped, also when it fails."""
    service = Service()
    make = Http2Server.__init__

    def made(server: Http2Server, *given: Any, **named: Any) -> None:
        make(server, *given, **named)
        service.servers.append(server)

    monkeypatch.setattr(Http2Server, "__init__", made)
    yield service
    service.hold.clear()
    for server in service.servers:
        await server.stop(0)


@pytest.fixture
async def server(service: Service) -> Http2Server:
    return service.server()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until it is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - anything may make it true
            await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """server.pem, server.key, client.pem, client.key, each its own authority."""
    openssl = shutil.which("openssl")
    if openssl is None:
        skip_loudly("no openssl to make certificates with")
    directory = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client"):
        subprocess.run(
            [
                *(str(openssl), "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-keyout", str(directory / f"{name}.key"), "-out", str(directory / f"{name}.pem")),
                *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
            ],
            check=True,
            capture_output=True,
        )
    return directory


def server_context(certificates: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "client.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(ALPN)
    return context


def client_context(certificates: Path, *protocols: str, client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates / "server.pem"))
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if client:
        context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


@pytest.fixture
async def http1() -> AsyncIterator[Callable[[], asyncio.Protocol]]:
    async def version(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"path": request.path, "body": (await request.read()).decode()})

    site = web.Server(version)
    yield site
    await site.shutdown(0)
