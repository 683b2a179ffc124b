"""What people write: files, options, transactions as text. What is wrong is a ConfigError, no traceback."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.cli import txn_text
from connect_kv.cli.machine import encoded
from connect_kv.cli.ports import FILE, choose
from connect_kv.client.endpoints import parse_endpoints
from connect_kv.client.messages import Compare, RequestOp
from connect_kv.config import from_cluster, load
from connect_kv.errors import ConfigError
from connect_kv.framework.cluster import Cluster
from connect_kv.options import OPTIONS
from tests.fuzz.conftest import damaged, fuzz

pytestmark = pytest.mark.long

GOOD = b"""
node = "n1"
data_dir = "data/n1"
heartbeat_ms = 100
machines = ["counter=module:Counter"]
[[members]]
name = "n1"
host = "127.0.0.1"
client_port = 2379
[[members]]
name = "n2"
host = "127.0.0.2"
"""

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70000)
    | st.sampled_from([2**70, 1.5, float("inf"), b"x", Path("x")])
    | st.sampled_from(
        ["", "n1", "127.0.0.1", "127.0.0.1:1", "n1=127.0.0.1:2", "a=b:C", "\0", "٣", "1" * 5000]
    )
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
member = st.fixed_dictionaries(
    {"name": st.just("n1") | values},
    optional=dict.fromkeys(("host", "client_port", "peer_port", "http_port", "else"), values),
)
files = st.fixed_dictionaries(
    {"members": st.lists(member, min_size=1, max_size=2) | values},
    optional={name: values for name in (*OPTIONS, "node", "data_dir")},
)


@fuzz(400)
@given(damaged(st.just(GOOD)) | st.binary(max_size=100))
def test_a_file_of_any_content(content: bytes) -> None:
    read(content)


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000, b"a = 0x" + b"f" * 9000, b"a." * 3_000 + b"a = 1",
     b"node = \"n1\"\nmembers = [{name = 'n1', client_port = 0x" + b"f" * 9000 + b"}]",
     b"members = [{name = 'n1'}]\ntick_ms = 0x" + b"f" * 9000, b"\xff\xfe", b"a = 2024-02-30", b"[members]"],
)  # fmt: skip
def test_files_that_are_hard_to_read(content: bytes) -> None:
    assert not read(content)


def read(content: bytes) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "Connect.toml"
        path.write_bytes(content)
        try:
            from_cluster(Cluster.from_file(path, environ={}), {})
        except ConfigError:
            return False
        return True


@fuzz(400)
@given(files, st.none() | st.text(max_size=3))
def test_a_mapping_of_any_content(given_: dict[str, object], name: str | None) -> None:
    with suppress(ConfigError):
        from_cluster(Cluster.from_dict(given_, name=name), {})


@fuzz(400)
@given(
    st.dictionaries(st.sampled_from(list(OPTIONS)), values, max_size=4),
    st.dictionaries(
        st.sampled_from([f"CONNECT_KV_{name.upper()}" for name in OPTIONS]),
        st.text(max_size=8) | st.sampled_from(["127.0.0.1:5", "n1=127.0.0.1:2380", ":" + "1" * 5000]),
        max_size=4,
    ),
)
def test_options_and_environment_of_any_content(options: dict[str, object], environ: dict[str, str]) -> None:
    with suppress(ConfigError):
        load(options, environ)


PIECES = [
    'version("a") = "0"', "mod(a) > 5", "value('a') != x", "lease(a) < 1f", 'create("', "put a b",
    "get a --prefix", "del a b", "put a b --lease=zz", "put a", '"', "'", "\\", "=", "(", ")", "9" * 5000,
    "f" * 5000, "\0", "\ud800", "\x85", "--lease=" + "f" * 40, "put k v --lease=", "lease(a) = ",
    "version(a) = ",
]  # fmt: skip
lines = st.lists(
    st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=4).map(" ".join) | st.just("")
)


@fuzz(500)
@given(lines)
def test_a_transaction_of_any_text(text: list[str]) -> None:
    try:
        compare, success, failure = txn_text.parse(text)
    except ConfigError:
        return
    assert all(isinstance(one, Compare) for one in compare)
    assert all(isinstance(one, RequestOp) for one in (*success, *failure))


@pytest.mark.parametrize(
    "line", ["put k v --lease=" + "f" * 40, "lease(a) = " + "f" * 40, "mod(a) = " + "9" * 30]
)
def test_numbers_beyond_64_bits_are_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="line "):
        txn_text.parse([line] if "(" in line else ["", line])


@pytest.mark.parametrize(
    "value", ["5", "x", "[" * 100_000, "9" * 10_000, '{"a":' * 50_000, "\ud800", "NaN", "1e999", '"\\ud800"']
)
def test_an_argument_of_a_call_is_json_or_text(value: str) -> None:
    assert json.loads(encoded((f"by={value}",), None)).keys() == {"by"}


@fuzz(300)
@given(damaged(st.just(b"[[2379, 2380, 2381]]")) | st.binary(max_size=40))
def test_the_remembered_ports_of_a_local_cluster(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / FILE).write_bytes(content)
        try:
            (chosen,) = choose(Path(name), 1, any_free=False)
        except ConfigError:
            return
        assert all(0 < port < 65536 for port in (chosen.client, chosen.peer, chosen.http))


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '[["a", "b", "c"]]', "[[1, 2, 70000]]", "[[1, 2, true]]", "7"]
)
def test_remembered_ports_that_are_none(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ConfigError, match="expected the ports"):
        choose(tmp_path, 1, any_free=False)


@fuzz(300)
@given(
    st.lists(
        st.sampled_from(["127.0.0.1:1", "http://", "::", ":", ",", "٣", "9" * 5000]) | st.text(max_size=4)
    )
)
def test_endpoints_of_any_text(parts: list[str]) -> None:
    with suppress(ConfigError):
        for one in parse_endpoints("".join(parts)):
            assert re.fullmatch(r".+:[0-9]{1,5}", one, re.DOTALL)
