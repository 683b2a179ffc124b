"""Server, as a program of one's own uses it; and how a process that cannot run says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import connect_kv
from connect_kv import Cluster, ConfigError, MessageType, Node, RefusedToStart, Server, ServiceType
from connect_kv.config import ServerConfig
from connect_kv.framework.callbacks import CALLBACKS, Messages
from connect_kv.framework.types import Store
from connect_kv.server.process import REFUSED, run, run_configured
from connect_kv.testing.ports import free_ports
from tests.services.test_members import Counter


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What runs as a process sends the package's log lines to standard error."""
    root = logging.getLogger("connect_kv")
    before = (list(root.handlers), root.level, root.propagate)
    yield
    root.handlers[:], root.level, root.propagate = before


def cluster(directory: Path) -> Cluster:
    client, peer = free_ports(2)
    node = Node(name="n1", client_port=client, peer_port=peer, http_port=0)
    return Cluster(members=[node], data_dir=directory / "n1", election_ms=400, heartbeat_ms=40, tick_ms=20)


async def test_a_machine_is_served_and_its_state_kept(tmp_path: Path) -> None:
    where = cluster(tmp_path)
    for expected in (5, 10):
        with Server(where, machines={"counter": Counter()}).start() as handle:
            async with connect_kv.connect(handle.client_address) as client:
                counter = client.machine("counter", Counter)
                assert await counter.call(Counter.increment, by=5) == expected
                assert await counter.call(Counter.value) == expected
                with pytest.raises(connect_kv.CommandFailed, match="ValueError: only upwards"):
                    await counter.call(Counter.increment, by=-1)
                with pytest.raises(connect_kv.BadCall, match="unknown machine"):
                    await client.machine("other", Counter).call(Counter.value)


async def test_callbacks_are_served_from_memory(tmp_path: Path) -> None:
    kept: list[bytes] = []

    def incoming(message: bytes) -> MessageType:
        return MessageType.READ if message == b"all" else MessageType.WRITE

    def on_read(message: bytes) -> bytes:
        return b",".join(kept)

    def on_write(message: bytes) -> bytes:
        kept.append(message)
        return b"%d" % len(kept)

    server = Server.from_callbacks(cluster(tmp_path), incoming, on_read, on_write, ServiceType.IN_MEMORY)
    with server.start() as handle:
        async with connect_kv.connect(handle.client_address) as client:
            service = client.machine(CALLBACKS, Messages)
            assert await service.call(Messages.send, message=b"a") == b"1"
            assert await service.call(Messages.send, message=b"b") == b"2"
            assert await service.call(Messages.send, message=b"all") == b"a,b"


async def test_callbacks_with_a_store_keep_their_state(tmp_path: Path) -> None:
    def incoming(message: bytes) -> MessageType:
        return MessageType.READ if message == b"?" else MessageType.WRITE

    def on_read(message: bytes, store: Store) -> bytes:
        return store.get(b"last") or b"none"

    def on_write(message: bytes, store: Store) -> bytes:
        before = store.get(b"last") or b"none"
        store.put(b"last", message)
        return before

    where = cluster(tmp_path)
    for expected in (b"none", b"x"):
        server = Server.from_callbacks(where, incoming, on_read, on_write, ServiceType.PERSISTENT)
        with server.start() as handle:
            async with connect_kv.connect(handle.client_address) as client:
                service = client.machine(CALLBACKS, Messages)
                assert await service.call(Messages.send, message=b"x") == expected
                assert await service.call(Messages.send, message=b"?") == b"x"


def test_a_server_that_cannot_start_raises_why(tmp_path: Path) -> None:
    where = cluster(tmp_path)
    with Server(where).start(), pytest.raises(RefusedToStart, match=where.client_address):
        Server(Cluster(members=[where.own], data_dir=tmp_path / "other")).start()


def test_what_is_no_machine_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="machine 'odd': int"):
        Server(cluster(tmp_path), machines={"odd": 3})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"machines": ("c=nowhere_to_be_found:X",)}, "machine c=nowhere_to_be_found:X: No module named"),
        ({"machines": ("c=json:loads",)}, "machine c=json:loads: function is neither"),
        ({"data_dir": "/proc/none/here"}, "data directory /proc/none/here"),
        ({"listen_client": "nowhere"}, "--listen-client: 'nowhere': expected HOST:PORT"),
    ],
)
def test_a_wrong_configuration_ends_in_one_line_and_exit_code_2(
    options: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    free = {"listen_client": "127.0.0.1:0", "listen_peer": "127.0.0.1:0", "listen_http": ""}
    assert run_configured({"data_dir": str(tmp_path / "d"), **free, **options}, {}) == REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_port_in_use_ends_in_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = cluster(tmp_path)
    (client,) = free_ports(1)
    with Server(where).start():
        config = ServerConfig(
            data_dir=tmp_path / "other",
            listen_client=f"127.0.0.1:{client}",
            listen_peer=where.peer_address,
            listen_http="",
        )
        assert run(config) == REFUSED
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("connect-kv:")] == [
        f"connect-kv: cannot listen for peers on {where.peer_address}: Address already in use"
    ]
