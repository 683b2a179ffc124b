"""The clients' port over TLS: gRPC and HTTP/1.1 on one."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

import connect_kv
from tests.tls.conftest import member, options_of, tls_of


async def get(url: str, tls: ssl.SSLContext) -> int:
    """The status."""
    async with aiohttp.ClientSession() as http, http.get(url, ssl=tls) as answer:
        return answer.status


async def test_over_tls_the_protocol_is_agreed_on(tmp_path: Path, folder: Path) -> None:
    async with member(tmp_path, **{**options_of(folder), "grpc_server": "door"}) as server:
        trusting = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        assert await get(f"https://{server.client_address}/version", trusting) == 200
        async with connect_kv.connect(server.client_address, tls=tls_of(folder)) as client:
            await client.put("key", "value")
        with pytest.raises(aiohttp.ClientError):
            await get(f"http://{server.client_address}/version", trusting)


@pytest.mark.parametrize(
    ("asked", "offered", "agreed"),
    [
        ({"tls_min_version": "TLS1.3"}, ssl.TLSVersion.TLSv1_2, "refused"),
        ({"tls_min_version": "TLS1.3"}, ssl.TLSVersion.TLSv1_3, "TLS_AES_256_GCM_SHA384"),
        (
            {"cipher_suites": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
            ssl.TLSVersion.TLSv1_2,
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
    ],
)
async def test_versions_and_suites_are_as_was_asked(
    tmp_path: Path, folder: Path, asked: dict[str, str], offered: ssl.TLSVersion, agreed: str
) -> None:
    async with member(tmp_path, **{**options_of(folder), "grpc_server": "door", **asked}) as server:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.minimum_version = context.maximum_version = offered
        context.set_alpn_protocols(["h2"])
        host, _, port = server.client_address.rpartition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        except OSError:
            assert agreed == "refused"
            return
        writer.close()
        assert writer.get_extra_info("cipher")[0] == agreed


async def test_what_clients_must_show_is_asked_of_http_too(tmp_path: Path, folder: Path) -> None:
    options = {**options_of(folder, mutual=True), "client_cert_allowed_cn": "bob", "grpc_server": "door"}
    async with member(tmp_path, **options) as server:
        url = f"https://{server.client_address}/version"
        nobody = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        with pytest.raises(aiohttp.ClientError):
            await get(url, nobody)
        for name, status in (("alice", 403), ("bob", 200)):
            shown = ssl.create_default_context(cafile=str(folder / "ca.pem"))
            shown.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
            assert await get(url, shown) == status


async def test_a_certificate_that_is_not_let_in_is_in_the_audit_log(tmp_path: Path, folder: Path) -> None:
    trail = tmp_path / "audit.jsonl"
    options = {**options_of(folder, mutual=True), "client_cert_allowed_cn": "bob", "grpc_server": "door"}
    async with member(tmp_path, audit_log=trail, **options) as server:
        credentials = grpc.ssl_channel_credentials(
            (folder / "ca.pem").read_bytes(),
            (folder / "alice.key").read_bytes(),
            (folder / "alice.pem").read_bytes(),
        )
        async with grpc.aio.secure_channel(server.client_address, credentials) as channel:
            call: Any = channel.unary_unary("/etcdserverpb.KV/Range")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"\x0a\x01k", timeout=20)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    found = [line for line in map(json.loads, trail.read_text().splitlines()) if line.get("certificate")]
    assert [(line["certificate"], line["code"]) for line in found] == [("alice", "PERMISSION_DENIED")]
    assert "allowed" in found[0]["reason"]
