"""Certificates made here pass the strictest checks at hand, are never overwritten, and keep their keys."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from connect_kv.authority import make_authority, make_client, make_node, make_self_signed, pair, renew
from connect_kv.certificates import load, read
from connect_kv.cli.certs import certs
from connect_kv.errors import ConfigError


def test_the_commands_make_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    for command in (
        ["init"],
        ["node", "n1", "--host", "10.0.0.1", "--host", "kv.example"],
        ["client", "alice"],
    ):
        ran = run(certs, command, catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
    keys = sorted(path.name for path in Path("certs").glob("*.key"))
    assert keys == ["alice.key", "ca.key", "n1.key"]
    assert all(Path("certs", key).stat().st_mode & 0o777 == 0o600 for key in keys)
    shown = json.loads(run(certs, ["show", "-o", "json"], catch_exceptions=False).output)
    assert [(one["kind"], one["names"], one["days_left"]) for one in shown] == [
        ("client", "alice", 364),
        ("authority", "connect-kv CA", 3649),
        ("member", "10.0.0.1, kv.example, n1", 364),
    ]
    before = {path: path.read_bytes() for path in Path("certs").iterdir()}
    for command in (["init"], ["node", "n1"], ["client", "n1"], ["client", "ca"], ["client", "../x"]):
        with pytest.raises(ConfigError):
            run(certs, command, catch_exceptions=False)
    assert {path: path.read_bytes() for path in Path("certs").iterdir()} == before


def test_without_an_authority_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no authority here yet: connect-kv certs init makes one"):
        make_client(tmp_path, "alice")
    assert list(tmp_path.iterdir()) == []


def test_renewing_keeps_key_and_names_and_the_authoritys_renewal_keeps_its_signatures(folder: Path) -> None:
    old = load((folder / "n1.pem").read_bytes())[0]
    renew(folder, "ca", days=5000)
    renew(folder, "n1", days=700)
    new = load((folder / "n1.pem").read_bytes())[0]
    assert new.public_key() == old.public_key()
    assert new.serial_number != old.serial_number
    assert read(new).names == read(old).names
    authority = load((folder / "ca.pem").read_bytes())[0]
    for one in (old, new):
        one.verify_directly_issued_by(authority)


def test_a_self_signed_certificate_is_for_its_hosts(tmp_path: Path) -> None:
    make_self_signed(pair(tmp_path, "own"), ["127.0.0.1", "kv.example"], days=365)
    (one,) = load((tmp_path / "own.pem").read_bytes())
    assert read(one).is_for("kv.example")
    assert one.issuer == one.subject


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the command openssl is not here")
def test_openssl_accepts_them_at_its_strictest(folder: Path) -> None:
    for name, purpose, good in (
        ("n1", "sslserver", True),
        ("n1", "sslclient", True),
        ("alice", "sslclient", True),
        ("alice", "sslserver", False),
    ):
        files = ["-CAfile", str(folder / "ca.pem"), str(folder / f"{name}.pem")]
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, *files]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ran.returncode == 0) is good, ran.stderr


STRICT = """
import socket, ssl, sys, threading
folder = sys.argv[1]
server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{folder}/ca.pem")
client = ssl.create_default_context(cafile=f"{folder}/ca.pem")
for context in (server, client):
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN  # the default since 3.13
server.verify_mode = ssl.CERT_REQUIRED
server.load_cert_chain(f"{folder}/n1.pem", f"{folder}/n1.key")
client.load_cert_chain(f"{folder}/alice.pem", f"{folder}/alice.key")
here, there = socket.socketpair()
def serve():
    with server.wrap_socket(there, server_side=True) as one:
        one.sendall(one.recv(5))
thread = threading.Thread(target=serve)
thread.start()
with client.wrap_socket(here, server_hostname="127.0.0.1") as one:
    one.sendall(b"hello")
    print(one.recv(5).decode())
thread.join()
"""


@pytest.mark.parametrize("python", [sys.executable, "python3.13"])
def test_python_accepts_both_sides_under_the_strict_checks_of_3_13(folder: Path, python: str) -> None:
    if (found := shutil.which(python)) is None:
        pytest.skip(f"{python} is not here")
    command = [found, "-c", STRICT, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "command not found" in ran.stderr:
        pytest.skip(f"{python} is not here")
    assert ran.stdout == "hello\n", ran.stderr


def test_an_authority_says_what_its_key_is_for(folder: Path) -> None:
    usage = load((folder / "ca.pem").read_bytes())[0].extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (
        True,
        True,
        False,
    )


def test_hosts_may_be_addresses_of_both_kinds(tmp_path: Path) -> None:
    make_authority(tmp_path)
    make_node(tmp_path, "n1", ["[::1]", "2001:DB8::1", "Kv.Example"])
    shown = read(load((tmp_path / "n1.pem").read_bytes())[0])
    assert all(map(shown.is_for, ("::1", "2001:db8:0:0::1", "kv.example", "n1")))
    assert not shown.is_for("kv.example.org")
