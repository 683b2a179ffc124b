"""Members trust only members: who shows another certificate of the same CA is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import connect_kv
from connect_kv.authority import make_authority, make_node
from connect_kv.credentials import Credentials, Demands
from connect_kv.node.membership import is_certified
from connect_kv.peer_protocol import Hello, HelloVerdict
from connect_kv.raft.types import Member
from connect_kv.testing.ports import free_ports
from connect_kv.transport.channel import Channels
from connect_kv.transport.describe import ask_describe
from connect_kv.transport.limits import TransportLimits
from tests.tls.conftest import member
from tests.transport.helpers import Network, append, connect

ASKER = Hello(
    cluster_id=0, source=0, target=0, directory_id=b"d" * 16, protocol=1, oldest_protocol=1, highest_command=0
)


def channels(folder: Path, name: str) -> Channels:
    credentials = Credentials(
        cert=folder / f"{name}.pem",
        key=folder / f"{name}.key",
        ca=folder / "ca.pem",
        demands=Demands(certificate=True),
    )
    return Channels(limits=TransportLimits(), credentials=credentials)


def test_a_certificate_is_a_members_by_its_name_or_its_host() -> None:
    one = Member(node_id=1, name="n1", peer_address="kv-1.example:2380")
    for names, verdict in (
        (None, True),
        ({"n1"}, True),
        ({"kv-1.example"}, True),
        ({"*.example"}, True),
        ({"n2", "kv-2.example"}, False),
        ({"example"}, False),
        (set(), False),
    ):
        assert is_certified(None if names is None else frozenset(names), one) is verdict, names
    unnamed = Member(node_id=1, name="", peer_address="[2001:DB8::1]:2380")
    assert is_certified(frozenset({"2001:db8::1"}), unnamed)
    assert not is_certified(frozenset({""}), unnamed)
    assert is_certified(frozenset({"moved.example"}), None, "moved.example:2380")


async def test_only_a_members_certificate_is_welcome(tmp_path: Path, folder: Path) -> None:
    make_node(folder, "n9", ["elsewhere.example"])
    (port,) = free_ports(1)
    files: dict[str, Any] = {
        "peer_cert_file": folder / "n1.pem",
        "peer_key_file": folder / "n1.key",
        "peer_trusted_ca_file": folder / "ca.pem",
    }
    address = f"127.0.0.1:{port}"
    async with member(tmp_path, listen_peer=address, advertise_peer=address, **files) as server:
        with pytest.raises(OSError, match="the certificate of alice is a client's, not a member's"):
            await ask_describe(address, ASKER, address, channels(folder, "alice"))
        told = await ask_describe(address, ASKER, address, channels(folder, "n9"))
        assert told.hello.verdict is HelloVerdict.UNKNOWN_MEMBER
        assert "certificate is for elsewhere.example, n9" in told.hello.detail
        told = await ask_describe(address, ASKER, address, channels(folder, "n1"))
        assert told.hello.verdict is HelloVerdict.WELCOME
        with pytest.raises(OSError, match="UNAVAILABLE"):
            await ask_describe(address, ASKER, address, Channels(limits=TransportLimits()))
        async with connect_kv.connect(server.client_address) as one:
            (listed,) = await one.members()
            assert list(listed.peerURLs) == [f"https://{address}"]


async def test_members_dial_anew_with_the_files_as_they_are_then(tmp_path: Path, folder: Path) -> None:
    """Another authority on both sides, one of them restarted: the other must not try on with the old."""
    new, two = tmp_path / "new", tmp_path / "two"
    make_authority(new)
    make_node(new, "n1", ["127.0.0.1"])
    shutil.copytree(folder, two)
    network = Network("grpc")
    try:
        one = await network.node(1, credentials=channels(folder, "n1").credentials)
        other = await network.node(2, credentials=channels(two, "n1").credentials)
        connect(one, other)
        await one.introduced(2)
        one.transport.send(append(1))
        await other.recorder.received(1)
        address = other.transport.address
        await other.transport.close()
        for place in (folder, two):
            for name in ("ca.pem", "n1.pem", "n1.key"):
                (place / f".{name}").write_bytes((new / name).read_bytes())
                (place / f".{name}").replace(place / name)
        again = await network.node(2, address, credentials=channels(two, "n1").credentials)
        connect(one, again)
        one.recorder.replies.clear()
        await one.introduced(2)
        one.transport.send(append(2))
        await again.recorder.received(1)
    finally:
        await network.close()
