"""Configuration: what wins, and that every error names where it came from."""

from pathlib import Path

import pytest

from connect_kv.config import InitialMember, ServerConfig, load
from connect_kv.errors import ConfigError


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
        ({"initial_cluster": "n2=127.0.0.1:1"}, {}, {}, ["--initial-cluster", "'default'"]),
        ({"initial_cluster": "default"}, {}, {}, ["--initial-cluster", "NAME=HOST:PORT"]),
        ({"initial_cluster": "a=h:1,a=h:2"}, {}, {}, ["--initial-cluster", "'a' is given twice"]),
        ({"initial_cluster": "default=h:1,b=h:1"}, {}, {}, ["both have the address h:1"]),
        ({"initial_cluster": "default=h:1"}, {}, {}, ["--advertise-peer", "h:1"]),
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
