"""One table is what `serve`, Connect.toml and the environment know, and what the page says."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from connect_kv.cli.serve import serve
from connect_kv.config import ServerConfig, from_options
from connect_kv.errors import ConfigError
from connect_kv.framework.cluster import Cluster
from connect_kv.options import GROUPS, OPTIONS, Kind, Option
from tests.docs.configuration import PAGE, page

MEMBER = [{"name": "n1"}]
VALUES: dict[str, object] = {
    "name": "n1",
    "data_dir": "elsewhere",
    "listen_client": "127.0.0.1:9001",
    "listen_peer": "127.0.0.1:9002",
    "listen_http": "127.0.0.1:9003",
    "advertise_client": "127.0.0.1:9004",
    "advertise_peer": "127.0.0.1:2380",
    "initial_cluster": "n1=127.0.0.1:2380,n2=127.0.0.1:9380",
    "initial_cluster_state": "existing",
    "initial_cluster_token": "mine",
    "machines": "counter=app:Counter",
    "accept_changed_code": "counter",
    "max_learners": 2,
    "auth_token": "jwt,sign-method=HS256,priv-key=secret",
    "auth_token_ttl": "1m",
    "bcrypt_cost": 11,
    "cert_file": "server.pem",
    "key_file": "server.key",
    "trusted_ca_file": "ca.pem",
    "client_cert_auth": "true",
    "client_crl_file": "crl.pem",
    "client_cert_allowed_cn": "alice,bob",
    "client_cert_allowed_hostname": "host.example",
    "http_tls": "off",
    "auto_tls": "true",
    "self_signed_cert_validity": 2,
    "enable_grpc_gateway": "false",
    "cors": "http://a.example:8000",
    "host_whitelist": "a.example",
    "dashboard": "write",
    "peer_cert_file": "peer.pem",
    "peer_key_file": "peer.key",
    "peer_trusted_ca_file": "peer-ca.pem",
    "peer_crl_file": "peer-crl.pem",
    "peer_cert_allowed_cn": "n1,n2",
    "peer_cert_allowed_hostname": "peer.example",
    "peer_auto_tls": "true",
    "tls_min_version": "TLS1.3",
    "cipher_suites": "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "heartbeat_ms": "0.2s",
    "election_ms": "2s",
    "tick_ms": "20ms",
    "corruption_check_seconds": "2m",
    "max_request_bytes": "2MiB",
    "quota_bytes": "3GiB",
    "auto_compaction": "1h30m",
    "snapshot_count": 7,
    "catch_up_entries": 8,
    "grpc_server": "grpcio",
    "log_level": "debug",
    "log_format": "json",
    "max_connections": 7,
    "max_handshakes": 8,
    "max_streams_per_user": 9,
    "max_watches_per_user": 10,
    "max_sessions_per_user": 0,
    "audit_log": "audit.jsonl",
    "audit_level": "reads",
    "tracing": "true",
}
"""One value of each option, other than its default."""

NEEDED: dict[str, object] = {
    "cert_file": "server.pem",
    "key_file": "server.key",
    "trusted_ca_file": "ca.pem",
    "peer_cert_file": "peer.pem",
    "peer_key_file": "peer.key",
    "peer_trusted_ca_file": "peer-ca.pem",
}
"""What options of TLS need beside them."""
TLS = frozenset(option.key for title in GROUPS if title.startswith("TLS") for option in GROUPS[title])

EACH = [option for option in OPTIONS.values() if option.kind is not Kind.FILE]


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.docs.configuration"


def test_the_table_has_every_field_and_serve_every_row() -> None:
    known = {field.name for field in fields(ServerConfig)} - {
        "also_listen_client",
        "client_addresses",
        "origins",
    }
    assert known == {option.key for option in EACH} == set(VALUES)
    assert {parameter.name: parameter.opts for parameter in serve.params} == {
        option.key: [option.flag] for option in OPTIONS.values()
    }


@pytest.mark.parametrize("option", EACH, ids=lambda option: option.key)
def test_each_can_be_given_in_each_of_the_three_places(option: Option, tmp_path: Path) -> None:
    value = VALUES[option.key]
    base: dict[str, object] = {"name": "n1"} if option.key == "initial_cluster" else {}
    if option.key in TLS:
        base = {key: file for key, file in NEEDED.items() if key != option.key}
    by_option = from_options({**base, option.key: str(value)}, {})
    by_variable = from_options(base, {option.variable: str(value)})
    assert getattr(by_option, option.key) == getattr(by_variable, option.key)
    assert getattr(by_option, option.key) != getattr(ServerConfig(), option.key)
    if option.key in ("name", "initial_cluster"):
        return  # the members' tables: tests/framework/test_cluster.py
    file = tmp_path / "Connect.toml"
    file.write_text(f"{option.file_key} = {value!r}\n[[members]]\nname = 'n1'\n")
    by_file = from_options({**base, "config": str(file)}, {})
    assert getattr(by_file, option.key) == getattr(by_option, option.key)
    if option.key != "data_dir":
        by_keyword = Cluster.from_dict({"members": MEMBER, option.key: value}).server_settings()
        assert by_keyword[option.key] == value


def test_a_shared_file_says_where_all_listen_and_where_each_is_reached(tmp_path: Path) -> None:
    file = tmp_path / "Connect.toml"
    file.write_text(
        "listen_client = '0.0.0.0:2379'\nlisten_peer = '0.0.0.0:2380'\n"
        "[[members]]\nname = 'a'\nhost = 'alpha'\n[[members]]\nname = 'b'\nhost = 'beta'\n"
    )
    found = from_options({"config": str(file), "name": "b"}, {})
    assert (found.listen_client, found.client_address) == ("0.0.0.0:2379", "beta:2379")
    assert (found.listen_peer, found.peer_address) == ("0.0.0.0:2380", "beta:2380")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("election_ms", "soon", "expected a duration such as 3s"),
        ("heartbeat_ms", "0.5ms", "expected a whole number of ms"),
        ("quota_bytes", "2 gigs", "expected a size such as"),
        ("corruption_check_seconds", "-1", "expected a duration"),
    ],
)
def test_a_wrong_value_names_its_place_and_what_was_expected(key: str, value: str, words: str) -> None:
    option = OPTIONS[key]
    for options, environ, origin in (
        ({key: value}, {}, option.flag),
        ({}, {option.variable: value}, option.variable),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            from_options(options, environ)
        assert str(caught.value).startswith(f"{origin}: ")
