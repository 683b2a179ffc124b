"""Configuration: what wins, and that every error names where it came from."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from connect_kv.config import InitialMember, ServerConfig, check_own_entry, load
from connect_kv.errors import ConfigError, RefusedToStart
from connect_kv.server.first_look import look
from connect_kv.testing.ports import free_ports


def test_with_nothing_given_one_node_serves_loopback() -> None:
    config = load({}, {})
    assert config == ServerConfig()
    assert config.listen_client == "127.0.0.1:2379"
    assert config.data_dir == Path("connect-kv.data")
    assert config.members == (InitialMember(name="default", peer_address="127.0.0.1:2380"),)


def test_an_option_wins_over_the_environment_and_that_over_the_file() -> None:
    file = {"name": "from-file", "heartbeat_ms": 150, "election_ms": 3000}
    environ = {"CONNECT_KV_NAME": "from-environment", "CONNECT_KV_HEARTBEAT_MS": "200"}
    config = load({"name": "from-option", "data_dir": None}, environ, file)
    assert (config.name, config.heartbeat_ms, config.election_ms) == ("from-option", 200, 3000)


def test_an_empty_variable_counts_as_not_given() -> None:
    """So compose files pass on what may be unset."""
    assert load({}, {"CONNECT_KV_NAME": "", "CONNECT_KV_INITIAL_CLUSTER": ""}) == ServerConfig()


def test_lists_come_as_text_or_as_repeated_options() -> None:
    members = "n1=127.0.0.1:2380, n2=127.0.0.1:22380"
    options = {"name": "n1", "initial_cluster": members, "machines": ("a=app:A", "b=app.more:B")}
    config = load(options, {})
    assert [member.name for member in config.members] == ["n1", "n2"]
    assert [(spec.name, spec.module, spec.attribute) for spec in config.machines] == [
        ("a", "app", "A"),
        ("b", "app.more", "B"),
    ]


@pytest.mark.parametrize(
    ("options", "environ", "file", "words"),
    [
        ({"listen_client": "2379"}, {}, {}, ["--listen-client", "HOST:PORT"]),
        ({}, {"CONNECT_KV_LISTEN_PEER": "host:70000"}, {}, ["CONNECT_KV_LISTEN_PEER", "host:70000"]),
        ({}, {}, {"election_ms": "soon"}, ["Connect.toml: election_ms", "soon"]),
        ({"listen_client": "127.0.0.1:2380"}, {}, {}, ["--listen-peer", "--listen-client"]),
        ({"listen_client": "0.0.0.0:2379"}, {}, {}, ["--advertise-client", "0.0.0.0:2379"]),
        ({"initial_cluster": "default"}, {}, {}, ["--initial-cluster", "NAME=HOST:PORT"]),
        ({"initial_cluster": "a=h:1,a=h:2"}, {}, {}, ["--initial-cluster", "'a' is given twice"]),
        ({"initial_cluster": "default=h:1,b=h:1"}, {}, {}, ["both have the address h:1"]),
        ({"initial_cluster_state": "old"}, {}, {}, ["--initial-cluster-state", "new or existing"]),
        ({"machines": "counter"}, {}, {}, ["--machine: ", "NAME=module:Class"]),
        ({"catch_up_entries": "0"}, {}, {}, ["--catch-up-entries", "positive"]),
        ({"election_ms": "300"}, {}, {}, ["--election-ms", "five heartbeats"]),
        ({"name": "a b"}, {}, {}, ["--name", "'a b'"]),
        ({"log_format": "xml"}, {}, {}, ["--log-format", "text or json"]),
        ({"max_request_bytes": "50000000"}, {}, {}, ["--max-request-bytes", "at most 33554432"]),
        ({"data_dir": ""}, {"CONNECT_KV_DATA_DIR": "d"}, {}, ["--data-dir: ''", "expected a value"]),
    ],
)
def test_an_error_names_its_origin(
    options: dict[str, object], environ: dict[str, str], file: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(options, environ, file)
    assert all(word in str(raised.value) for word in words), str(raised.value)


@pytest.mark.parametrize(
    ("options", "environ", "file", "words"),
    [
        ({"initial_cluster": "n2=127.0.0.1:1"}, {}, {}, ["--initial-cluster: ", "'default'", "not among n2"]),
        ({}, {"CONNECT_KV_INITIAL_CLUSTER": "default=h:1"}, {}, ["CONNECT_KV_INITIAL_CLUSTER: ", "h:1"]),
    ],
)
def test_an_initial_cluster_must_fit_the_node_only_where_it_counts(
    options: dict[str, object], environ: dict[str, str], file: dict[str, object], words: list[str]
) -> None:
    config = load(options, environ, file)
    with pytest.raises(ConfigError) as raised:
        check_own_entry(config)
    assert all(word in str(raised.value) for word in words), str(raised.value)


@pytest.mark.parametrize("which", ["listen_client", "listen_peer", "listen_http"])
def test_an_address_that_is_taken_is_found_before_anything_is_made(which: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        client, peer, http = (f"127.0.0.1:{port}" for port in free_ports(3))
        config = ServerConfig(
            data_dir=tmp_path / "data", listen_client=client, listen_peer=peer, listen_http=http
        )
        config = replace(config, **{which: address})  # type: ignore[arg-type]
        with pytest.raises(RefusedToStart, match=f"{address}: Address already in use"):
            look(config)
    look(config)


def test_an_initial_cluster_counts_for_an_empty_directory_only(tmp_path: Path) -> None:
    config = replace(
        load({"initial_cluster": "n2=127.0.0.1:1"}, {}),
        data_dir=tmp_path,
        listen_client="127.0.0.1:0",
        listen_peer="127.0.0.1:0",
        listen_http="",
    )
    with pytest.raises(ConfigError, match="not among n2"):
        look(config)
    (tmp_path / "log").mkdir()
    look(config)
