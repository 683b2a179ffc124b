"""Certificates of a member's own making: encryption without trust, kept over restarts."""

from __future__ import annotations

import asyncio
import logging
import ssl
import stat
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

import connect_kv
from connect_kv import ConfigError, Tls, Unavailable
from connect_kv.authority import Pair, make_self_signed
from connect_kv.config import from_options
from connect_kv.testing.processes import ProcessCluster
from tests.tls.conftest import member, options_of, tls_of


async def test_clients_speak_tls_and_who_has_the_file_can_verify_it(tmp_path: Path) -> None:
    cert, key = (tmp_path / "n1" / "fixtures" / "client" / name for name in ("cert.pem", "key.pem"))
    async with member(tmp_path, auto_tls=True) as server:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        async with connect_kv.connect(server.client_address, tls=Tls(ca=cert)) as client:
            await client.put("key", "value")
            (listed,) = await client.members()
            assert list(listed.clientURLs) == [f"https://{server.client_address}"]
        async with connect_kv.connect(server.client_address, timeout=1) as client:
            with pytest.raises(Unavailable, match="does it want TLS"):
                await client.get("key")
        context = ssl.create_default_context(cafile=str(cert))
        where = f"https://127.0.0.1:{server.services.http_port}/health"
        async with aiohttp.ClientSession() as http, http.get(where, ssl=context) as answer:
            assert answer.status == 200
    before = cert.read_bytes(), key.read_bytes()
    async with member(tmp_path, auto_tls=True, self_signed_cert_validity=3) as server:
        assert (cert.read_bytes(), key.read_bytes()) == before
        async with connect_kv.connect(server.client_address, tls=Tls(ca=cert)) as client:
            found = await client.get("key")
            assert found is not None
            assert found.value == b"value"


async def test_how_long_it_is_good_is_told_in_years(tmp_path: Path) -> None:
    async with member(tmp_path, auto_tls=True, self_signed_cert_validity=3):
        pass
    made = x509.load_pem_x509_certificate((tmp_path / "n1/fixtures/client/cert.pem").read_bytes())
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days in (3 * 365, 3 * 365 + 1)


async def test_one_that_has_expired_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "n1" / "fixtures" / "client"
    (tmp_path / "n1").mkdir(mode=0o700)
    pair = Pair(cert=folder / "cert.pem", key=folder / "key.pem")
    make_self_signed(pair, ["127.0.0.1"], days=0)
    async with (
        member(tmp_path, auto_tls=True) as server,
        connect_kv.connect(server.client_address, tls=Tls(ca=pair.cert)) as client,
    ):
        await client.put("key", "value")


async def test_a_certificate_that_is_given_counts_before_it(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with (
            member(tmp_path, auto_tls=True, **options_of(folder)) as server,
            connect_kv.connect(server.client_address, tls=tls_of(folder)) as client,
        ):
            await client.put("key", "value")
    assert "--auto-tls is ignored" in caplog.text
    assert not (tmp_path / "n1" / "fixtures").exists()


async def test_clients_certificates_can_be_demanded_beside_it(tmp_path: Path, folder: Path) -> None:
    cert = tmp_path / "n1" / "fixtures" / "client" / "cert.pem"
    async with member(tmp_path, auto_tls=True, trusted_ca_file=folder / "ca.pem") as server:
        alice = Tls(ca=cert, cert=folder / "alice.pem", key=folder / "alice.key")
        async with connect_kv.connect(server.client_address, tls=alice) as client:
            await client.put("key", "value")
        async with connect_kv.connect(server.client_address, tls=Tls(ca=cert), timeout=1) as client:
            with pytest.raises(Unavailable, match="closes connections at once"):
                await client.get("key")


async def test_a_broken_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "n1" / "fixtures" / "client"
    folder.mkdir(parents=True)
    (folder / "cert.pem").write_text("nothing")
    (folder / "key.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"cert.pem: is no certificate; remove it"):
        async with member(tmp_path, auto_tls=True):
            pass


@pytest.mark.parametrize("years", ["0", "-1", "101"])
def test_no_such_years(years: str) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 100 years"):
        from_options({"self_signed_cert_validity": years}, {})


@pytest.mark.cluster
async def test_members_speak_tls_that_nobody_signed(tmp_path: Path) -> None:
    """Three of them; what goes between is not in the clear, and the certificates are kept."""
    cluster = ProcessCluster(tmp_path, arguments=("--peer-auto-tls",))
    async with cluster:
        async with cluster.client() as client:
            await client.put("key", "value")
            urls = [url for one in await client.members() for url in one.peerURLs]
            assert sorted(urls) == sorted(f"https://{node.peer_address}" for node in cluster.nodes)
        node = cluster.nodes[0]
        cert = node.data_dir / "fixtures" / "peer" / "cert.pem"
        shown = await asyncio.to_thread(
            ssl.get_server_certificate, (node.host, node.peer_port)
        )  # any client may connect, as with etcd's
        assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(cert.read_text())
        assert await node.stop() == 0
        await node.start()
        await node.ready()
        again = await asyncio.to_thread(ssl.get_server_certificate, (node.host, node.peer_port))
        assert again == shown
