"""Files of TLS: what is wrong with each is said by name; changed ones are taken over, broken ones are not."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import connect_kv
from connect_kv import Tls, Unavailable
from connect_kv.authority import make_authority, make_client, make_node, renew
from connect_kv.config import from_options
from connect_kv.credentials import Credentials, Demands
from connect_kv.errors import ConfigError
from connect_kv.server.first_look import look
from connect_kv.server.tls import client_credentials
from tests.tls.conftest import member, options_of, tls_of


def credentials(folder: Path, *, wall: Callable[[], float] = time.time) -> Credentials:
    return Credentials(cert=folder / "n1.pem", key=folder / "n1.key", ca=folder / "ca.pem", wall=wall)


def replaced(folder: Path, name: str, data: bytes) -> None:
    """As `mv` does: another file under the same name."""
    beside = folder / f".{name}"
    beside.write_bytes(data)
    beside.replace(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("n1.pem", None, "--cert-file: certificate .*n1.pem: cannot be read: No such file"),
        ("n1.pem", b"", "is empty"),
        ("n1.pem", b"nonsense", "n1.pem: is no certificate"),
        ("n1.pem", "n1.key", "n1.pem: holds no certificate but a private key"),
        ("n1.key", None, "--key-file: key .*n1.key: cannot be read: No such file"),
        ("n1.key", "alice.key", "n1.key: does not belong to certificate .*n1.pem"),
        ("n1.key", "n1.pem", "n1.key: holds no private key in PEM"),
        ("ca.pem", None, "--trusted-ca-file: CA .*ca.pem: cannot be read: No such file"),
        ("ca.pem", "n1.pem", "holds the certificate of 127.0.0.1, n1, which is no CA"),
        ("crl.pem", None, "--client-crl-file: revocation list .*crl.pem: cannot be read"),
        ("crl.pem", "ca.pem", "crl.pem: is no revocation list but a certificate"),
    ],
)
def test_each_file_that_cannot_be_used_is_named_before_anything_starts(
    folder: Path, tmp_path: Path, name: str, content: bytes | str | None, words: str
) -> None:
    data = (folder / content).read_bytes() if isinstance(content, str) else content
    (folder / name).unlink(missing_ok=True)
    if data is not None:
        (folder / name).write_bytes(data)
    given = {"data_dir": tmp_path / "n1", "listen_client": "127.0.0.1:0", "listen_peer": "127.0.0.1:0"}
    files = {**options_of(folder, mutual=True)} | (
        {"client_crl_file": folder / "crl.pem"} if "crl" in name else {}
    )
    options = {key: str(value) for key, value in {**given, **files}.items()}
    config = from_options({**options, "listen_http": ""}, {})
    with pytest.raises(ConfigError) as caught:
        look(config)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert not (tmp_path / "n1").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cert_file": "a"}, "--cert-file: needs --key-file too"),
        ({"key_file": "a"}, "--key-file: needs --cert-file too"),
        ({"trusted_ca_file": "a"}, "--trusted-ca-file: needs --cert-file too"),
        ({"client_cert_auth": "true"}, "--client-cert-auth: needs --trusted-ca-file too"),
        ({"peer_cert_file": "a", "peer_key_file": "a"}, "--peer-cert-file: needs --peer-trusted-ca-file too"),
        ({"tls_min_version": "TLS9"}, r'unexpected TLS version "TLS9" \(must be one of: TLS1.2, TLS1.3\)'),
        ({"cipher_suites": "NOPE"}, 'unexpected TLS cipher suite "NOPE"'),
        (
            {"tls_min_version": "TLS1.3", "cipher_suites": "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"},
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        ({"http_tls": "mutual"}, "--http-tls: mutual needs --trusted-ca-file too"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_options(options, {})


def test_an_expired_certificate_is_refused_at_the_start_and_goes_on_serving_later(folder: Path) -> None:
    later = [time.time()]
    one = credentials(folder, wall=lambda: later[0])
    later[0] += 366 * 86400
    assert one.latest.certificate
    with pytest.raises(ConfigError, match=r"n1\.pem: expired on 20"):
        credentials(folder, wall=lambda: later[0])


def test_it_warns_thirty_seven_and_one_day_before_and_once_it_has_expired(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = start = time.time()
    one = credentials(folder, wall=lambda: now)
    told = []
    for days in (300, 336, 336.5, 359, 359.5, 364.5, 366, 367):
        now = start + days * 86400
        caplog.clear()
        one.look()
        told.append([(record.levelname, record.message.split()[-1]) for record in caplog.records])
    warning, expired = [("WARNING", "soon")], [("ERROR", "expired")]
    assert told == [[], warning, [], warning, [], warning, expired, []]
    assert one.latest.expiries.keys() == {str(folder / "n1.pem"), str(folder / "ca.pem")}


def test_broken_files_are_reported_once_and_the_last_good_ones_go_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = credentials(folder)
    before = one.latest
    replaced(folder, "n1.pem", b"nonsense")
    with caplog.at_level(logging.ERROR):
        assert one.latest is before
        assert one.latest is before
    assert [record.message for record in caplog.records] == [
        "TLS files are broken; those before them go on serving"
    ]
    assert (one.broken, one.failures, one.reloads) == (True, 1, 0)
    replaced(folder, "n1.pem", before.certificate or b"")
    assert one.latest is not before
    assert (one.broken, one.failures, one.reloads) == (False, 1, 1)


async def test_every_handshake_goes_by_the_files_as_they_are_then(tmp_path: Path, folder: Path) -> None:
    """Certificate, key and CA of a running server, over gRPC and over HTTP; old connections live on."""
    new = tmp_path / "new"
    make_authority(new)
    make_node(new, "n1", ["127.0.0.1"])
    make_client(new, "alice")
    async with member(tmp_path, **options_of(folder, mutual=True), http_tls="mutual") as server:
        address = server.client_address
        held = tmp_path / "held"
        shutil.copytree(folder, held)
        async with connect_kv.connect(address, tls=tls_of(held, "alice"), timeout=3) as old:
            await old.put("key", "value")
            for name in ("ca.pem", "n1.pem", "n1.key"):
                replaced(folder, name, (new / name).read_bytes())
            async with connect_kv.connect(address, tls=tls_of(new, "alice"), timeout=3) as one:
                await one.put("key", "value")
            http = server.services.http_port
            await asyncio.to_thread(handshake, "127.0.0.1", http, tls_of(new, "alice"))
            await old.put("key", "value")
            for stale in (
                tls_of(held, "alice"),
                Tls(ca=new / "ca.pem", cert=held / "alice.pem", key=held / "alice.key"),
            ):
                async with connect_kv.connect(address, tls=stale, timeout=0.5, session=False) as other:
                    with pytest.raises(Unavailable):
                        await other.put("key", "value")
                with pytest.raises(OSError, match=r".*"):
                    await asyncio.to_thread(handshake, "127.0.0.1", http, stale)
            # A broken file changes nothing.
            replaced(folder, "n1.key", b"broken")
            async with connect_kv.connect(address, tls=tls_of(new, "alice"), timeout=3) as one:
                await one.put("key", "value")


async def test_a_client_connects_anew_with_the_files_as_they_are_then(tmp_path: Path, folder: Path) -> None:
    new = tmp_path / "new"
    make_authority(new)
    make_node(new, "n1", ["127.0.0.1"])
    make_client(new, "alice")
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    async with member(tmp_path, **options_of(folder, mutual=True)) as server:
        port = int(server.client_address.rpartition(":")[2])
        async with connect_kv.connect(server.client_address, tls=tls_of(mine, "alice"), timeout=10) as one:
            await one.put("key", "1")
            await server.stop()
            for name in ("ca.pem", "n1.pem", "n1.key"):
                replaced(folder, name, (new / name).read_bytes())
            for name in ("ca.pem", "alice.pem", "alice.key"):
                replaced(mine, name, (new / name).read_bytes())
            config = server.config
            again = type(server)(
                type(config)(
                    name="n1",
                    data_dir=config.data_dir,
                    listen_client=f"127.0.0.1:{port}",
                    listen_peer="127.0.0.1:0",
                    listen_http="",
                    advertise_peer="127.0.0.1:2380",
                    **options_of(folder, mutual=True),
                )
            )
            await again.start()
            try:
                await one.put("key", "2")
            finally:
                await again.stop()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_oldest_version_and_the_suites_are_as_told(folder: Path, version: ssl.TLSVersion) -> None:
    suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
    for demands, works in (
        (Demands(ciphers=(suite,)), True),
        (Demands(min_version="TLS1.3"), version is ssl.TLSVersion.TLSv1_3),
    ):
        one = Credentials(cert=folder / "n1.pem", key=folder / "n1.key", demands=demands)
        context = one.server_context(["h2", "http/1.1"])
        server = await asyncio.start_server(_close, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        client.minimum_version = client.maximum_version = version
        client.set_alpn_protocols(["h2"])
        async with server:
            if not works:
                with pytest.raises(OSError, match=r".*"):
                    await asyncio.open_connection("127.0.0.1", port, ssl=client)
                continue
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            if version is ssl.TLSVersion.TLSv1_2:
                assert writer.get_extra_info("cipher")[0] == suite
            writer.close()


async def _close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def handshake(host: str, port: int, tls: Tls) -> None:
    """And one byte: with TLS 1.3 a client learns at its first read that it was refused. Raises OSError."""
    context = ssl.create_default_context(cafile=str(tls.ca))
    if tls.cert and tls.key:
        context.load_cert_chain(tls.cert, tls.key)
    with (
        socket.create_connection((host, port), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as one,
    ):
        one.sendall(b"GET /version HTTP/1.0\r\n\r\n")
        if not one.recv(1):
            raise ConnectionError("closed")


def test_a_renewed_certificate_fits_the_same_key_at_every_moment(folder: Path) -> None:
    one = credentials(folder)
    before = one.latest
    renew(folder, "n1", days=700)
    after = one.latest
    assert after.key == before.key
    assert after.expiries[str(folder / "n1.pem")] > before.expiries[str(folder / "n1.pem")]
    assert one.failures == 0


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_the_grpc_library_is_loaded_with_the_version_and_the_suites(folder: Path, version: str) -> None:
    """It reads them once in a process."""
    suite = "" if version == "TLS1.3" else "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    program = f"""
import asyncio, ssl, sys
from connect_kv import grpc_core
from connect_kv.credentials import Credentials, grpc_suites
grpc_core.silence()
grpc_core.load(suites=grpc_suites({version!r}, {suite!r}))
import grpc

async def offered(port, version):
    context = ssl.create_default_context(cafile={str(folder / "ca.pem")!r})
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except OSError:
        return "refused"
    writer.close()
    return writer.get_extra_info("cipher")[0]

async def main():
    server = grpc.aio.server()
    one = Credentials(cert={str(folder / "n1.pem")!r}, key={str(folder / "n1.key")!r})
    port = server.add_secure_port("127.0.0.1:0", one.grpc_server())
    await server.start()
    print([await offered(port, one) for one in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)])
    await server.stop(None)

asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    old = "ECDHE-ECDSA-AES256-GCM-SHA384" if suite else "refused"
    assert ran.stdout.strip() == repr([old, "TLS_AES_256_GCM_SHA384"])


def test_a_program_that_loaded_grpc_itself_is_told_what_to_do(folder: Path) -> None:
    options = {key: str(path) for key, path in options_of(folder).items()}
    options = {**options, "tls_min_version": "TLS1.3"}
    client_credentials(
        from_options({**options, "grpc_server": "door"}, {})
    )  # which does not need the library
    config = from_options({**options, "grpc_server": "grpcio"}, {})
    with pytest.raises(ConfigError, match="--tls-min-version: gRPC is loaded already: set GRPC_SSL"):
        client_credentials(config)


def test_a_certificate_that_cannot_be_parsed_within_is_a_broken_file_like_others(folder: Path) -> None:
    """It is found late, by whoever asks for the extension: that must not end a member that runs."""
    one = credentials(folder)
    before = one.latest
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
    issued = x509.load_pem_x509_certificate(before.certificate or b"")
    building = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    building = building.serial_number(1).not_valid_before(issued.not_valid_before_utc)
    building = building.not_valid_after(issued.not_valid_after_utc)
    nonsense = x509.UnrecognizedExtension(x509.BasicConstraints.oid, b"\x05\x01\x02")
    odd = building.add_extension(nonsense, True).sign(key, hashes.SHA256())
    replaced(folder, "ca.pem", odd.public_bytes(serialization.Encoding.PEM))
    assert one.latest is before
    assert (one.broken, one.failures) == (True, 1)
    one.look()
