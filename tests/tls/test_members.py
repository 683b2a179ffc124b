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
from connect_kv.transport.describe import ask_describe
from connect_kv.transport.http2_wire import Http2Wire
from connect_kv.transport.limits import TransportLimits
from tests.tls.conftest import member
from tests.transport.helpers import Network, append, connect

ASKER = Hello(
    cluster_id=0, source=0, target=0, directory_id=b"d" * 16, protocol=1, oldest_protocol=1, highest_command=0
)


def credentials(folder: Path, name: str) -> Credentials:
    return Credentials(
        cert=folder / f"{name}.pem",
        key=folder / f"{name}.key",
        ca=folder / "ca.pem",
        demands=Demands(certificate=True),
    )


def wire(folder: Path, name: str) -> Http2Wire:
    return Http2Wire(TransportLimits(), credentials(folder, name))


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
            await ask_describe(address, ASKER, address, wire(folder, "alice"))
        told = await ask_describe(address, ASKER, address, wire(folder, "n9"))
        assert told.hello.verdict is HelloVerdict.UNKNOWN_MEMBER
        assert "certificate is for elsewhere.example, n9" in told.hello.detail
        told = await ask_describe(address, ASKER, address, wire(folder, "n1"))
        assert told.hello.verdict is HelloVerdict.WELCOME
        with pytest.raises(OSError, match="UNAVAILABLE"):
            await ask_describe(address, ASKER, address, Http2Wire(TransportLimits()))
        async with connect_kv.connect(server.client_address) as one:
            (listed,) = await one.members()
            assert list(listed.peerURLs) == [f"https://{address}"]


@pytest.mark.parametrize("kind", ["grpc", "from grpcio", "to grpcio"])
async def test_members_of_this_version_and_the_last_trust_each_other(folder: Path, kind: str) -> None:
    network = Network(kind)
    try:
        one = await network.node(1, credentials=credentials(folder, "n1"))
        two = await network.node(2, credentials=credentials(folder, "n1"))
        connect(one, two)
        await one.introduced(2)
        await two.introduced(1)
        for number in (1, 2):
            one.transport.send(append(number, b"x" * 100_000))
            two.transport.send(append(number, b"y" * 100_000, source=2, target=1))
        await one.recorder.received(2)
        await two.recorder.received(2)
        assert await one.transport.ask(2, "Status", b"now") == b"1 asks 2 for Status: now"
        assert {hello.certified for hello in one.recorder.hellos} == {frozenset({"127.0.0.1", "n1"})}
    finally:
        await network.close()


@pytest.mark.parametrize("kind", ["grpc", "from grpcio", "to grpcio"])
async def test_who_has_no_members_certificate_is_refused_by_both_versions(folder: Path, kind: str) -> None:
    """The one who refuses names the reason in its log; the one who is refused sees that it is about TLS."""
    network = Network(kind)
    try:
        stranger = await network.node(1, credentials=credentials(folder, "alice"))
        two = await network.node(2, credentials=credentials(folder, "n1"))
        stranger.transport.set_peers({2: two.transport.address})
        await stranger.recorder.until(lambda: 2 in stranger.recorder.unreachable_ids)
        stranger.transport.send(append(1))
        assert not two.recorder.messages
        assert not two.recorder.hellos
    finally:
        await network.close()


async def test_members_dial_anew_with_the_files_as_they_are_then(tmp_path: Path, folder: Path) -> None:
    """Another authority on both sides, one of them restarted: the other must not try on with the old."""
    new, two = tmp_path / "new", tmp_path / "two"
    make_authority(new)
    make_node(new, "n1", ["127.0.0.1"])
    shutil.copytree(folder, two)
    network = Network("grpc")
    try:
        one = await network.node(1, credentials=credentials(folder, "n1"))
        other = await network.node(2, credentials=credentials(two, "n1"))
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
        again = await network.node(2, address, credentials=credentials(two, "n1"))
        connect(one, again)
        one.recorder.replies.clear()
        await one.introduced(2)
        one.transport.send(append(2))
        await again.recorder.received(1)
    finally:
        await network.close()
