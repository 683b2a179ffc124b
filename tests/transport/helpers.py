"""Nodes without Raft: they note what their transport tells them, and wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from connect_kv.credentials import Credentials
from connect_kv.interfaces import Transport
from connect_kv.peer_protocol import (
    Description,
    Hello,
    HelloReply,
    HelloVerdict,
    Loss,
    PeerMessage,
    SnapshotOffer,
)
from connect_kv.raft.messages import AppendRequest, HeartbeatRequest
from connect_kv.raft.types import Entry, EntryId, EntryKind, Member, Membership, SnapshotMeta
from connect_kv.transport.grpc_transport import GrpcTransport
from connect_kv.transport.limits import TransportLimits
from connect_kv.transport.memory import Faults, MemoryNetwork
from tests.transport.grpcio_wire import GrpcioWire

CLUSTER = 0xC1


class QuickClock:
    """Pauses of a second or so pass at once; longer ones only when released."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.released = asyncio.Event()

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if seconds > 2:
            await self.released.wait()
        else:
            await asyncio.sleep(0.002)


class Recorder:
    """A PeerReceiver that welcomes everybody unless told otherwise."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.verdicts: dict[int, HelloVerdict] = {}
        self.hellos: list[Hello] = []
        self.replies: list[tuple[int, HelloVerdict]] = []
        self.messages: list[PeerMessage] = []
        self.unreachable_ids: list[int] = []
        self.losses: list[tuple[int, Loss]] = []
        self.offers: list[SnapshotOffer] = []
        self.pieces: list[bytes] = []
        self.installed = 0
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.refuse_snapshot = ""
        self._changed = asyncio.Event()

    async def hello(self, hello: Hello) -> HelloReply:
        self.hellos.append(hello)
        self._changed.set()
        verdict = self.verdicts.get(hello.source, HelloVerdict.WELCOME)
        return HelloReply(verdict=verdict, detail=verdict.name, protocol=1, directory_id=b"there")

    def hello_reply(self, node_id: int, reply: HelloReply) -> None:
        self.replies.append((node_id, reply.verdict))
        self._changed.set()

    def receive(self, message: PeerMessage) -> None:
        self.messages.append(message)
        self._changed.set()

    def unreachable(self, node_id: int, loss: Loss) -> None:
        self.unreachable_ids.append(node_id)
        self.losses.append((node_id, loss))
        self._changed.set()

    async def receive_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        self.offers.append(offer)
        self._changed.set()
        if self.refuse_snapshot:
            raise ValueError(self.refuse_snapshot)
        async for piece in chunks:
            self.pieces.append(piece)
            self._changed.set()
            await self.may_take.wait()
        self.installed += 1

    async def describe(self, asker: Hello, peer_address: str) -> Description:
        self.hellos.append(asker)
        member = Member(node_id=self.node_id, name="n", peer_address=peer_address)
        membership = Membership(members=(member,), voters=frozenset({self.node_id}))
        return Description(
            cluster_id=CLUSTER,
            node_id=self.node_id,
            membership=membership,
            hello=HelloReply(verdict=self.verdicts.get(asker.source, HelloVerdict.UNKNOWN_MEMBER)),
            leader_id=None,
            term=7,
        )

    async def answer(self, hello: Hello, method: str, request: bytes) -> bytes:
        if self.verdicts.get(hello.source, HelloVerdict.WELCOME) is not HelloVerdict.WELCOME:
            raise PermissionError("not welcome")
        return f"{hello.source} asks {hello.target} for {method}: ".encode() + request

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it; a minute at most."""
        async with asyncio.timeout(60):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def received(self, count: int) -> Sequence[PeerMessage]:
        await self.until(lambda: len(self.messages) >= count)
        return self.messages


def hello_of(node_id: int) -> Callable[[int], Hello]:
    """How that node introduces itself."""
    return lambda target: Hello(
        cluster_id=CLUSTER,
        source=node_id,
        target=target,
        directory_id=f"directory {node_id}".encode(),
        protocol=2,
        oldest_protocol=1,
        highest_command=9,
    )


class Started(Transport, Protocol):
    """A transport that knows where it listens."""

    @property
    def address(self) -> str:
        """``host:port``."""


@dataclass
class Node:
    """A transport and what it told."""

    node_id: int
    transport: Started
    recorder: Recorder

    async def introduced(self, *others: int) -> None:
        """Wait until those have answered our hello."""
        await self.recorder.until(lambda: {node_id for node_id, _ in self.recorder.replies} >= set(others))


class Network:
    """Makes nodes of one kind of transport, and closes them: "memory", "grpc", or that with node 1 ("from
    grpcio") or node 2 ("to grpcio") as earlier versions were.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.clock = QuickClock()
        self.memory = MemoryNetwork(Random(1), faults=Faults(retry=0.002, refused_pause=0.005))
        self.nodes: list[Node] = []

    async def node(
        self,
        node_id: int,
        address: str = "",
        limits: TransportLimits | None = None,
        peers: Mapping[int, str] | None = None,
        credentials: Credentials | None = None,
    ) -> Node:
        recorder = Recorder(node_id)
        transport: Started
        if self.kind == "memory":
            transport = self.memory.transport(address or f"host{node_id}:1")
        else:
            transport = GrpcTransport(
                address or "127.0.0.1:0",
                clock=self.clock,
                limits=limits,
                credentials=credentials,
                wire=self._wire(node_id, limits or TransportLimits(), credentials),
            )
        node = Node(node_id, transport, recorder)
        self.nodes.append(node)
        if peers is not None:
            transport.set_peers(peers)
        await transport.start(recorder, hello_of(node_id))
        return node

    def _wire(
        self, node_id: int, limits: TransportLimits, credentials: Credentials | None
    ) -> GrpcioWire | None:
        """Of an earlier version, for the node whose turn it is."""
        if self.kind == {1: "from grpcio", 2: "to grpcio"}.get(node_id):
            return GrpcioWire(limits, credentials)
        return None

    async def pair(self) -> tuple[Node, Node]:
        """Nodes 1 and 2, introduced to each other."""
        one, two = await self.node(1), await self.node(2)
        connect(one, two)
        await one.introduced(2)
        await two.introduced(1)
        return one, two

    async def close(self) -> None:
        for node in self.nodes:
            await node.transport.close()


def connect(*nodes: Node) -> None:
    """Everybody knows everybody."""
    addresses = {node.node_id: node.transport.address for node in nodes}
    for node in nodes:
        node.transport.set_peers(addresses)


def append(index: int, data: bytes = b"", source: int = 1, target: int = 2) -> AppendRequest:
    """One entry, at `index`."""
    entry = Entry(EntryId(3, index), EntryKind.COMMAND, data)
    return AppendRequest(
        source=source, target=target, term=3, prev=EntryId(3, index - 1), entries=(entry,), commit_index=0
    )


def heartbeat(round: int, source: int = 1, target: int = 2) -> HeartbeatRequest:
    """One heartbeat."""
    return HeartbeatRequest(source=source, target=target, term=3, commit_index=0, round=round)


def offer(source: int = 1, target: int = 2, snapshot_id: int = 77) -> SnapshotOffer:
    """A snapshot of a one-member cluster."""
    member = Member(node_id=source, name="n1", peer_address="127.0.0.1:1")
    membership = Membership(members=(member,), voters=frozenset({source}))
    return SnapshotOffer(
        hello=hello_of(source)(target),
        term=4,
        meta=SnapshotMeta(EntryId(3, 50), membership),
        snapshot_id=snapshot_id,
        approximate_bytes=1000,
    )


async def pieces_of(pieces: Sequence[bytes], taken: list[int] | None = None) -> AsyncIterator[bytes]:
    """Those; notes in `taken` which have been asked for."""
    for number, piece in enumerate(pieces):
        if taken is not None:
            taken.append(number)
        yield piece
