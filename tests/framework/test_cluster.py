"""Cluster from a file, a dict or keywords; a bad one is a ConfigError that says where and what."""

from __future__ import annotations

from pathlib import Path

import pytest

from connect_kv.config import load
from connect_kv.errors import ConfigError
from connect_kv.framework.cluster import Cluster, Node
from connect_kv.options import FILE_SETTINGS

TEXT = """
node = "n1"
data_dir = "data/n1"
heartbeat_ms = 50
[[members]]
name = "n1"
[[members]]
name = "n2"
host = "db.example.org"
client_port = 22379
peer_port = 22380
http_port = 0
[[members]]
name = "n3"
host = "::1"
client_port = 32379
"""


def from_text(
    tmp_path: Path, text: str, name: str | None = None, environ: dict[str, str] | None = None
) -> Cluster:
    file = tmp_path / "Connect.toml"
    file.write_text(text)
    return Cluster.from_file(file, name=name, environ=environ or {})


def test_a_file_says_who_takes_part_and_where(tmp_path: Path) -> None:
    cluster = from_text(tmp_path, TEXT)
    assert (cluster.node_id, cluster.client_address, cluster.peer_address) == (
        "n1", "127.0.0.1:2379", "127.0.0.1:2380",
    )  # fmt: skip
    assert cluster.remote_node_ids == ("n2", "n3")
    assert cluster.remote_client_addresses == ("db.example.org:22379", "[::1]:32379")
    assert cluster.remote_peer_addresses == ("db.example.org:22380", "[::1]:2380")
    assert cluster.client_address_of("n2") == "db.example.org:22379"
    assert cluster.peer_address_of("n1") == "127.0.0.1:2380"
    assert cluster.data_dir == Path("data/n1")
    assert cluster.settings == {"heartbeat_ms": 50}
    with pytest.raises(KeyError, match="no member 'n9'; there are n1, n2, n3"):
        cluster.node("n9")


def test_the_name_can_come_from_outside_the_file(tmp_path: Path) -> None:
    assert from_text(tmp_path, TEXT, environ={"CONNECT_KV_NAME": "n2"}).node_id == "n2"
    assert from_text(tmp_path, TEXT, name="n3", environ={"CONNECT_KV_NAME": "n2"}).node_id == "n3"


def test_dict_and_keywords_say_the_same_as_a_file(tmp_path: Path) -> None:
    members = [
        {"name": "a", "client_port": 1},
        {"name": "b", "client_port": 2, "peer_port": 3, "http_port": 0},
    ]
    expected = Cluster.from_dict({"node": "b", "members": members}).server_settings()
    nodes = [Node(name="a", client_port=1), Node(name="b", client_port=2, peer_port=3, http_port=0)]
    assert Cluster(node="b", members=members).server_settings() == expected
    assert Cluster(node="b", members=nodes).server_settings() == expected
    assert expected == {
        "name": "b",
        "data_dir": "data/b",
        "listen_client": "127.0.0.1:2",
        "listen_peer": "127.0.0.1:3",
        "listen_http": "",
        "initial_cluster": {"a": "127.0.0.1:2380", "b": "127.0.0.1:3"},
        "client_addresses": {"a": "127.0.0.1:1", "b": "127.0.0.1:2"},
    }


def test_a_server_takes_every_setting_a_file_may_have() -> None:
    settings: dict[str, object] = {
        "heartbeat_ms": 50,
        "machines": {"c": "module:Class"},
        "log_format": "json",
    }
    cluster = Cluster.from_dict({"members": [{"name": "a"}], "data_dir": "/d", **settings})
    config = load({}, {}, cluster.server_settings())
    assert (config.heartbeat_ms, config.log_format, config.machines[0].name) == (50, "json", "c")
    assert (config.listen_client, str(config.data_dir)) == ("127.0.0.1:2379", "/d")
    for key in FILE_SETTINGS:
        assert hasattr(config, key), f"{key} is accepted in the file and ignored"


def test_a_single_member_needs_no_node_key() -> None:
    assert Cluster(members=[Node(name="only")]).node_id == "only"


ONE = '[[members]]\nname = "a"\n'
OTHER = '[[members]]\nname = "b"\nclient_port = 1\npeer_port = 2\nhttp_port = 3\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("node = ]\n", "is not TOML: .*line 1"),
        ('node = "n1"\nnode = "n2"\n', "is not TOML: .*line 2"),
        ('node = "n1"', "members: expected at least one"),
        ("members = []", "members: expected at least one"),
        ('members = ["n1"]', r"members\[0\]: expected a table, got 'n1'"),
        ('node = "n9"\n' + ONE, "node: 'n9' is not among the members: expected one of a"),
        (ONE + OTHER, "node: is missing: expected one of a, b"),
        ('nod = "n1"\n' + ONE, "nod: unknown key; expected one of .*node"),
        (ONE + "port = 1", r"members\[0\]\.port: unknown key; expected one of client_port"),
        ('[[members]]\nhost = "h"', r"members\[0\]\.name: is missing"),
        ('[[members]]\nname = "a,b"', r"members\[0\]\.name: expected a name"),
        ("[[members]]\nname = 5", r"members\[0\]\.name: expected a name .*got 5"),
        (ONE + 'host = ""', r"members\[0\]\.host: expected a host"),
        (ONE + 'host = "h:1"', r"members\[0\]\.host: expected a host .*without port"),
        (ONE + 'client_port = "x"', r"members\[0\]\.client_port: expected a port .*'x'"),
        (ONE + "client_port = 0", r"members\[0\]\.client_port: expected a port from 1"),
        (ONE + "peer_port = 70000", r"members\[0\]\.peer_port: expected a port"),
        (ONE + "peer_port = true", r"members\[0\]\.peer_port: expected a port"),
        (ONE + "peer_port = 2379", r"members\[0\]\.peer_port: \S+:2379 is used by members\[0\]\.client_port"),
        (ONE + ONE, r"members\[1\]\.name: a is used by members\[0\]\.name"),
        ("data_dir = 5\n" + ONE, "data_dir: expected text, got 5"),
    ],
)
def test_a_bad_file_names_the_key_and_what_was_expected(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=r"Connect\.toml: " + complaint) as caught:
        from_text(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file"):
        Cluster.from_file(tmp_path / "missing.toml", environ={})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: is not UTF-8"):
        Cluster.from_file(tmp_path / "binary.toml", environ={})
