"""What does not fit is one clear line at both ends, and nothing is half started."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import connect_kv
from connect_kv import Refused, Tls, Unavailable
from connect_kv.handshakes import TELL_AGAIN_SECONDS, Handshakes
from tests.auth.conftest import found_users, server_at
from tests.auth.replay import Keys
from tests.cli.conftest import Cli
from tests.doors import GRPC_SERVER
from tests.tls.conftest import member, options_of, tls_of

ours = pytest.mark.skipif(GRPC_SERVER != "door", reason="the gRPC library says nothing of handshakes")


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[str]:
    """The reasons in lines of that kind."""
    return [
        str(getattr(one, "reason", getattr(one, "peer", "")))
        for one in caplog.records
        if one.getMessage() == message
    ]


@ours
async def test_a_handshake_that_comes_to_nothing_is_told_on_both_sides(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = folder / "foreign"
    mallory = Tls(ca=folder / "ca.pem", cert=foreign / "mallory.pem", key=foreign / "mallory.key")
    closed = "closes connections at once: does it want TLS, or another certificate of the client"
    async with member(tmp_path, **options_of(folder, mutual=True)) as server:
        for tls, here, there in (
            (None, closed, "it does not speak TLS"),
            (tls_of(folder), closed, "it showed no certificate"),
            (mallory, closed, "its certificate is not good: "),
        ):
            caplog.clear()
            async with connect_kv.connect(server.client_address, tls=tls, timeout=1, session=False) as client:
                with pytest.raises(Unavailable, match=here):
                    await client.get("k")
            (reason,) = told(caplog, "who connected got no further than TLS")  # though it tried several times
            assert reason.startswith(there)
        shown = server.metrics.text().decode()
        (count,) = re.findall(r'^connect_kv_tls_handshakes_refused_total{use="clients"} (\S+)$', shown, re.M)
        assert float(count) >= 3


@ours
async def test_tls_on_a_port_without_is_told_on_both_sides(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with member(tmp_path) as server:
        async with connect_kv.connect(server.client_address, tls=tls_of(folder), timeout=1) as client:
            with pytest.raises(Unavailable, match="does not speak TLS"):
                await client.get("k")
        (peer,) = told(caplog, "TLS came to a port that does not speak it")
        assert peer.startswith("127.0.0.1")


def test_one_reason_is_told_once_a_minute_with_how_often(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    handshakes = Handshakes(lambda: now)
    error = ssl.SSLError(1, "x")
    error.reason = "HTTP_REQUEST"
    for _ in range(5):
        handshakes.failed(error)
    now = TELL_AGAIN_SECONDS
    handshakes.failed(error)
    assert [getattr(one, "times", 0) for one in caplog.records] == [1, 5]
    assert handshakes.refused == 6


@pytest.mark.parametrize("hours", [-1, 1])
async def test_clocks_an_hour_apart_do_no_harm_to_certificates_of_ours(
    tmp_path: Path, folder: Path, hours: int
) -> None:
    """A certificate is good since a day before it was made: another machine's clock may be behind."""
    made = x509.load_pem_x509_certificate((folder / "n1.pem").read_bytes())
    there = datetime.now(UTC) + timedelta(hours=hours)
    assert made.not_valid_before_utc < there < made.not_valid_after_utc


async def test_a_certificate_of_the_future_is_told_on_both_sides(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one looks that was made where the clock is right, to who is an hour behind."""
    begins_later(folder)
    async with member(tmp_path, **options_of(folder)) as server:
        assert "a certificate is not valid yet: is the clock of this machine right?" in caplog.text
        async with connect_kv.connect(server.client_address, tls=tls_of(folder), timeout=1) as client:
            with pytest.raises(Unavailable, match="not valid yet by this machine's clock"):
                await client.get("k")


def begins_later(folder: Path) -> None:
    """n1's certificate is good from an hour from now on."""
    old = x509.load_pem_x509_certificate((folder / "n1.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key: Any = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    building = x509.CertificateBuilder().subject_name(old.subject).issuer_name(authority.subject)
    building = building.public_key(old.public_key()).serial_number(1)
    building = building.not_valid_before(datetime.now(UTC) + timedelta(hours=1))
    building = building.not_valid_after(old.not_valid_after_utc)
    for extension in old.extensions:
        building = building.add_extension(extension.value, extension.critical)
    signed = building.sign(key, hashes.SHA256())
    (folder / "n1.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


async def test_a_json_web_token_of_a_clock_an_hour_ahead_is_good_and_one_behind_is_got_anew(
    tmp_path: Path,
) -> None:
    keys = Keys.made(tmp_path)
    tokens = f"jwt,sign-method=RS256,priv-key={keys.private},ttl=5m"
    async with server_at(tmp_path, auth_token=tokens) as server:
        async with connect_kv.connect(server.client_address, user="root", password="r00t") as root:
            await found_users(root)
            await root.auth.enable()
            revision = (await root.auth.status())[1]
        import jwt

        now = datetime.now(UTC).timestamp()
        claims = {"username": "al", "revision": revision}
        for hours, good in ((1, True), (-1, False)):
            token = jwt.encode({**claims, "exp": int(now + 300 + 3600 * hours)}, keys.own, algorithm="RS256")
            async with connect_kv.connect(server.client_address, token=token) as al:
                if good:
                    await al.put("k", "v")
                else:
                    with pytest.raises(Refused, match=r"^etcdserver: invalid auth token$"):
                        await al.put("k", "v")


@pytest.mark.parametrize("kind", ["simple", "jwt"])
@pytest.mark.parametrize("size", [0, 1, 65_536])
async def test_tokens_that_are_none_are_invalid_whatever_their_size(
    tmp_path: Path, kind: str, size: int
) -> None:
    tokens = "simple"
    if kind == "jwt":
        tokens = f"jwt,sign-method=RS256,priv-key={Keys.made(tmp_path).private}"
    async with server_at(tmp_path, auth_token=tokens) as server:
        async with connect_kv.connect(server.client_address, user="root", password="r00t") as root:
            await found_users(root)
            await root.auth.enable()
        if not size:
            return
        for token in ("a" * size, "a" * (size // 2) + "." + "9" * (size // 2)):
            async with connect_kv.connect(server.client_address, token=token, session=False) as thief:
                with pytest.raises(Refused) as refused:
                    await thief.get("k")
                assert (refused.value.code, refused.value.message) == (16, "etcdserver: invalid auth token")


async def test_a_permission_on_an_empty_key_is_refused_and_an_empty_prefix_is_all(tmp_path: Path) -> None:
    async with (
        server_at(tmp_path) as server,
        connect_kv.connect(server.client_address, user="root", password="r00t") as root,
    ):
        await found_users(root)
        for end in ("", "z", b"\0"):
            with pytest.raises(Refused) as refused:
                await root.auth.grant("k", 0, "", end)  # type: ignore[arg-type]
            assert (refused.value.code, refused.value.message) == (3, "etcdserver: invalid auth management")
        await root.auth.grant("k", 0, "", prefix=True)  # type: ignore[arg-type]
        first, *_ = (await root.auth.role("k")).permissions
        assert (first.key, first.range_end) == (b"\0", b"\0")


def test_no_start_with_a_bad_file_leaves_anything_behind(folder: Path, tmp_path: Path, cli: Cli) -> None:
    """The process says one line, ends with 2, and has made nothing."""
    good = {
        "cert-file": folder / "n1.pem",
        "key-file": folder / "n1.key",
        "trusted-ca-file": folder / "ca.pem",
    }
    empty = folder / "empty"
    empty.touch()
    for option, bad, line in (
        ("cert-file", folder / "none.pem", "cannot be read: No such file or directory"),
        ("cert-file", folder, "cannot be read: Is a directory"),
        ("cert-file", folder / "n1.key", "holds no certificate but a private key"),
        ("cert-file", empty, "is empty"),
        ("key-file", folder / "alice.key", "does not belong to certificate"),
        ("key-file", folder / "n1.pem", "holds no private key in PEM"),
        ("trusted-ca-file", folder / "n1.pem", "which is no CA"),
        ("trusted-ca-file", folder / "n1.key", "holds no certificate but a private key"),
        ("client-crl-file", folder / "ca.pem", "is no revocation list but a certificate"),
    ):
        given = {**good, option: bad}
        words = [word for name, path in given.items() for word in (f"--{name}", str(path))]
        where = tmp_path / "data"
        addresses = ("--listen-client", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0", "--listen-http", "")
        done = cli("serve", "--data-dir", str(where), *addresses, *words)
        assert done.code == 2, (option, bad)
        (said,) = done.err.splitlines()
        assert line in said
        assert f"--{option}" in said
        assert not where.exists()


async def test_broken_files_of_a_running_member_end_nothing(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever they become: the last good ones serve."""
    async with member(tmp_path, **options_of(folder, mutual=True)) as server:
        good = (folder / "n1.pem").read_bytes()
        for content in (b"", b"nothing", (folder / "n1.key").read_bytes(), good[:300]):
            (folder / "n1.pem").write_bytes(content)
            caplog.clear()
            async with connect_kv.connect(server.client_address, tls=tls_of(folder, "alice")) as alice:
                await alice.put("k", "v")
            broken = "TLS files are broken; those before them go on serving"
            assert any("n1.pem" in reason for reason in told(caplog, broken))
        (folder / "n1.pem").write_bytes(good)
