"""Clients over TLS: who is let in, who is not, and what each is told."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import connect_kv
from connect_kv import Tls, Unavailable
from connect_kv.authority import make_node
from connect_kv.client.client import Client
from connect_kv.config import from_options
from connect_kv.errors import ConfigError, Refused
from connect_kv.frontend.grpc.grpcio_server import _metadata
from connect_kv.frontend.grpc.router import CERTIFICATE_NAME, CallKind, Metadata, MethodRoute
from connect_kv.http2 import frames
from connect_kv.http2.hpack import literal
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse
from connect_kv.server.composition import KvServer
from connect_kv.server.tls import client_credentials
from tests.doors import listening
from tests.tls.conftest import member, options_of, tls_of


def client(address: str, tls: Tls | None, *, session: bool = False) -> Client:
    return connect_kv.connect(address, tls=tls, timeout=1, session=session)


@pytest.mark.parametrize("session", [True, False])
async def test_a_client_without_a_certificate_talks_to_a_server_that_demands_none(
    tmp_path: Path, folder: Path, session: bool
) -> None:
    async with (
        member(tmp_path, **options_of(folder)) as server,
        client(server.client_address, tls_of(folder), session=session) as one,
    ):
        await one.put("key", "value")
        (found,) = await one.members()
        assert list(found.clientURLs) == [f"https://{server.client_address}"]


async def test_with_a_trusted_ca_each_client_needs_a_certificate(tmp_path: Path, folder: Path) -> None:
    async with member(tmp_path, **options_of(folder, mutual=True)) as server:
        async with client(server.client_address, tls_of(folder, "alice"), session=True) as alice:
            await alice.put("key", "value")
        foreign = folder / "foreign"
        mallory = Tls(ca=folder / "ca.pem", cert=foreign / "mallory.pem", key=foreign / "mallory.key")
        for refused in (tls_of(folder), mallory):
            async with client(server.client_address, refused) as stranger:
                with pytest.raises(Unavailable, match="closes connections at once: does it want TLS"):
                    await stranger.get("key")


async def test_each_side_says_what_is_wrong_with_the_other(tmp_path: Path, folder: Path) -> None:
    make_node(folder, "elsewhere", ["elsewhere.example"])
    elsewhere = {"cert_file": folder / "elsewhere.pem", "key_file": folder / "elsewhere.key"}
    async with member(tmp_path, **options_of(folder)) as server:
        for tls, words in (
            (None, "closes connections at once: does it want TLS"),
            (Tls(ca=folder / "foreign" / "ca.pem"), "none of the trusted CAs signed"),
        ):
            async with client(server.client_address, tls) as one:
                with pytest.raises(Unavailable, match=words):
                    await one.get("key")
    async with member(tmp_path) as server, client(server.client_address, tls_of(folder)) as one:
        with pytest.raises(Unavailable, match="does not speak TLS"):
            await one.get("key")
    async with member(tmp_path, **elsewhere) as server:
        async with client(server.client_address, tls_of(folder)) as one:
            with pytest.raises(Unavailable, match="has a certificate for another name or address"):
                await one.get("key")
        named = Tls(ca=folder / "ca.pem", server_name="elsewhere.example")
        async with client(server.client_address, named) as one:
            await one.get("key")


async def test_only_allowed_names_are_let_in(tmp_path: Path, folder: Path) -> None:
    options = {**options_of(folder, mutual=True), "client_cert_allowed_cn": "bob, carol"}
    async with member(tmp_path, **options) as server:
        async with client(server.client_address, tls_of(folder, "bob")) as bob:
            await bob.get("key")
        async with client(server.client_address, tls_of(folder, "alice")) as alice:
            with pytest.raises(Refused, match="CommonName 'alice' is not allowed"):
                await alice.get("key")


async def test_a_revoked_certificate_is_refused_at_the_next_connection(tmp_path: Path, folder: Path) -> None:
    revoke(folder)
    options = {**options_of(folder, mutual=True), "client_crl_file": folder / "crl.pem"}
    async with member(tmp_path, **options) as server:
        async with client(server.client_address, tls_of(folder, "alice")) as alice:
            await alice.get("key")
        revoke(folder, "alice")
        async with client(server.client_address, tls_of(folder, "alice")) as alice:
            with pytest.raises(Refused, match="of alice is revoked"):
                await alice.get("key")
        async with client(server.client_address, tls_of(folder, "bob")) as bob:
            await bob.get("key")


@pytest.mark.parametrize("kind", ["door", "gateway"])
async def test_a_connection_that_is_open_when_its_certificate_is_revoked_ends_with_its_watches(
    tmp_path: Path, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_kv.credentials.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("connect_kv.frontend.http.server._LONGEST_SWEEP", 0.2)
    revoke(folder)
    options = {
        **options_of(folder, mutual=True),
        "client_crl_file": folder / "crl.pem",
        "grpc_server": "door",
    }
    async with member(tmp_path, **options) as server:
        watches = {name: await watching(server, folder, name, kind) for name in ("alice", "bob")}
        revoke(folder, "alice")
        async with asyncio.timeout(60):
            with suppress(ConnectionError):
                told = await watches["alice"][0].read()
                assert kind == "gateway" or b"of alice is revoked" in told
        async with client(server.client_address, tls_of(folder, "bob")) as bob:
            await bob.put("watched", "v")
        async with asyncio.timeout(60):
            assert await watches["bob"][0].read(1)
        for _, writer in watches.values():
            writer.close()


async def watching(
    server: KvServer, folder: Path, name: str, kind: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a watch, by HTTP/2 and gRPC or by HTTP/1 and JSON, read up to its beginning."""
    shown = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    shown.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    shown.set_alpn_protocols(["h2" if kind == "door" else "http/1.1"])
    host, _, port = server.client_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=shown)
    request = WatchRequest(create_request=WatchCreateRequest(key=b"watched"))
    if kind == "door":
        fields = [
            (b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/etcdserverpb.Watch/Watch"),
            (b":authority", b"t"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
        ]  # fmt: skip
        block = b"".join(literal(*one) for one in fields)
        writer.write(frames.PREFACE + frames.settings({}) + frames.headers(1, block, 0))
        writer.write(frames.message_frame(1, request.SerializeToString(), 0))
    else:
        body = b'{"create_request": {"key": "d2F0Y2hlZA=="}}'
        head = b"POST /v3/watch HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
    created = WatchResponse(created=True).SerializeToString() if kind == "door" else b'"created":true'
    read = b""
    async with asyncio.timeout(60):
        while created not in read:
            read += await reader.read(1 << 16)
    return reader, writer


@pytest.mark.parametrize("kind", ["door", "grpcio"])
@pytest.mark.parametrize("name", ["alice", ""])
async def test_the_name_in_a_certificate_reaches_the_router(folder: Path, name: str, kind: str) -> None:
    """As a field of the metadata that no client can send."""
    seen: list[Metadata] = []
    made = from_options({key: str(path) for key, path in options_of(folder, mutual=bool(name)).items()}, {})
    credentials = client_credentials(made)["clients"]

    async def unary(request: bytes, metadata: Metadata) -> bytes:
        seen.append(metadata)
        return b""

    async def stream(_: object) -> None:
        raise AssertionError

    route = MethodRoute(
        service="S", method="M", kind=CallKind.UNARY, unary=unary, stream=stream, overloaded=None
    )
    router: Any = SimpleNamespace(routes={"/S/M": route}, route=lambda _: route, serves=lambda _: True)
    shown = [(folder / f"{name}.{end}").read_bytes() if name else None for end in ("key", "pem")]
    secure = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), *shown)
    async with (
        listening(router, kind=kind, credentials=credentials) as port,
        grpc.aio.secure_channel(f"127.0.0.1:{port}", secure) as channel,
    ):
        call: Any = channel.unary_unary("/S/M")
        await call(b"", metadata=(("mine", "1"),))
    (metadata,) = seen
    assert [value for key, value in metadata if key == CERTIFICATE_NAME] == ([name] if name else [])


@pytest.mark.parametrize("mode", ["open", "mutual", "off"])
async def test_http_has_tls_as_it_was_told(tmp_path: Path, folder: Path, mode: str) -> None:
    options = {**options_of(folder, mutual=True), "http_tls": mode}
    bare = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    alice = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    alice.load_cert_chain(folder / "alice.pem", folder / "alice.key")
    async with member(tmp_path, **options) as server, aiohttp.ClientSession() as http:
        where = f"127.0.0.1:{server.services.http_port}/metrics"
        for context, works in ((alice, mode != "off"), (bare, mode == "open")):
            if works:
                async with http.get(f"https://{where}", ssl=context) as answer:
                    assert answer.status == 200
                    text = await answer.text()
                    assert f'connect_kv_tls_expiry_timestamp_seconds{{file="{folder / "n1.pem"}"' in text
            else:
                with pytest.raises(aiohttp.ClientError):
                    await http.get(f"https://{where}", ssl=context)
        if mode == "off":
            async with http.get(f"http://{where}") as answer:
                assert answer.status == 200
        else:
            with pytest.raises(aiohttp.ClientError):
                await http.get(f"http://{where}")


def test_no_client_can_send_that_name_itself() -> None:
    """Whether or not the library lets such a field in."""
    sent = (("mine", "1"), (CERTIFICATE_NAME, "root"))
    context: Any = type("Call", (), {"invocation_metadata": lambda self: sent})()
    assert _metadata(context) == (("mine", "1"),)


def test_a_client_says_which_file_is_wrong(folder: Path) -> None:
    for tls, words in (
        (Tls(ca=folder / "none.pem"), "CA .*none.pem: cannot be read: No such file"),
        (Tls(ca=folder / "ca.pem", cert=folder / "alice.pem"), "are given together"),
        (Tls(cert=folder / "alice.pem", key=folder / "bob.key"), "bob.key: does not belong to certificate"),
    ):
        with pytest.raises(ConfigError, match=words):
            connect_kv.connect("127.0.0.1:2379", tls=tls)
    with pytest.raises(ConfigError, match="without TLS"):
        connect_kv.connect("http://127.0.0.1:2379", tls=tls_of(folder))
    with pytest.raises(ConfigError, match="without TLS"):
        connect_kv.connect("http://127.0.0.1:2379,https://127.0.0.1:22379")


def revoke(folder: Path, *names: str) -> None:
    """Write a list of them, signed by the authority."""
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key: Any = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    start = authority.not_valid_before_utc
    building = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
    building = building.last_update(start).next_update(authority.not_valid_after_utc)
    for name in names:
        serial = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()).serial_number
        one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
        building = building.add_revoked_certificate(one)
    signed = building.sign(key, hashes.SHA256())
    (folder / "crl.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
