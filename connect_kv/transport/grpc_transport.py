"""The Transport over gRPC: which message takes which way.

- Append and heartbeat requests leave on the AppendEntries stream this member opened to the target;
  their answers go back on the stream the asker opened here, or, if that is gone, on our own.
- Proposals and read barriers take the Forward stream in the same manner.
- Votes, requests and answers alike, and TimeoutNow are letters: one unary call each, answered as
  soon as they are delivered. A vote waits for a disk and may be late; no call is held open for it.
- Every member keeps an AppendEntries stream open to every other: so each learns at its start, and
  after every change, what the others think of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping

from connect_kv.credentials import Credentials
from connect_kv.errors import RefusedToStart
from connect_kv.interfaces import Clock, PeerReceiver
from connect_kv.peer_protocol import (
    Description,
    ForwardRequest,
    ForwardResponse,
    Hello,
    Loss,
    PeerMessage,
    SnapshotOffer,
)
from connect_kv.raft.messages import (
    AppendRequest,
    AppendResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    ReadIndexRequest,
    ReadIndexResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from connect_kv.transport.ask import ask
from connect_kv.transport.codec import BadMessage, encode_frame
from connect_kv.transport.describe import ask_describe
from connect_kv.transport.http2_wire import Http2Wire
from connect_kv.transport.limits import TransportLimits
from connect_kv.transport.local import Local
from connect_kv.transport.peer import RemotePeer
from connect_kv.transport.servicer import RaftServicer
from connect_kv.transport.snapshot_sender import send_snapshot
from connect_kv.transport.stream import Lane
from connect_kv.transport.traffic import Traffic
from connect_kv.transport.wire import PeerWire

_log = logging.getLogger(__name__)

_REQUESTS: dict[type, Lane] = {
    AppendRequest: Lane.APPEND,
    HeartbeatRequest: Lane.APPEND,
    ForwardRequest: Lane.FORWARD,
    ReadIndexRequest: Lane.FORWARD,
}
_ANSWERS: dict[type, Lane] = {
    AppendResponse: Lane.APPEND,
    HeartbeatResponse: Lane.APPEND,
    ForwardResponse: Lane.FORWARD,
    ReadIndexResponse: Lane.FORWARD,
}
_LETTERS: dict[type, str] = {
    VoteRequest: "RequestVote",
    VoteResponse: "RequestVote",
    TimeoutNow: "TimeoutNow",
}
_URGENT = frozenset({HeartbeatRequest, HeartbeatResponse})


class GrpcTransport:
    """Messages between members over gRPC. Lives on one loop."""

    def __init__(
        self,
        listen_address: str,
        *,
        clock: Clock,
        limits: TransportLimits | None = None,
        credentials: Credentials | None = None,
        wire: PeerWire | None = None,
    ) -> None:
        """`credentials`: this member's own certificate, and who signs those of members; None: no TLS.
        `wire`: what carries gRPC, if that is not our own HTTP/2.
        """
        self._listen_address = listen_address
        self._clock = clock
        self._limits = limits or TransportLimits()
        self.credentials = credentials
        self._wire = wire or Http2Wire(self._limits, credentials)
        self.traffic = Traffic()
        """To and from each other member."""
        self._local: Local | None = None
        self._servicer: RaftServicer | None = None
        self._peers: dict[int, RemotePeer] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._port = 0
        self._early_peers: Mapping[int, str] = {}
        self._closed = False

    @property
    def address(self) -> str:
        """``host:port`` listened on, once started: with port 0 given, the one that was free."""
        host, _, _ = self._listen_address.rpartition(":")
        return f"{host}:{self._port}"

    async def start(self, receiver: PeerReceiver, hello: Callable[[int], Hello]) -> None:
        """Listen. Raises RefusedToStart, naming the address, if that is not possible."""
        self._local = Local(
            receiver=receiver,
            hello=hello,
            clock=self._clock,
            wire=self._wire,
            credentials=self.credentials,
            traffic=self.traffic,
        )
        self._servicer = RaftServicer(self._local)
        where = self._listen_address
        try:
            self._port = await self._wire.listen(where, self._servicer.unary, self._servicer.streams)
        except ValueError as error:
            raise RefusedToStart(f"cannot listen for peers on {error}") from None
        except OSError as error:
            raise RefusedToStart(f"cannot listen for peers on {where}: {_reason(error)}") from error
        self.set_peers(self._early_peers)

    def _close_soon(self, peer: RemotePeer) -> None:
        task = asyncio.create_task(peer.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Replace the known peers, this member itself left out; what stays as it was is untouched."""
        if self._closed:
            return
        local = self._local
        if local is None or self._port == 0:
            self._early_peers = addresses
            return
        wanted = {
            node_id: address
            for node_id, address in addresses.items()
            if node_id != local.hello(node_id).source
        }
        gone = [peer for peer in self._peers.values() if wanted.get(peer.node_id) != peer.address]
        for peer in gone:
            del self._peers[peer.node_id]
            self._close_soon(peer)
        if self._servicer is not None:
            self._servicer.end_streams(peer.node_id for peer in gone if peer.node_id not in wanted)
        for node_id, address in wanted.items():
            if node_id not in self._peers:
                self._peers[node_id] = RemotePeer(node_id, address, local)

    def send(self, message: PeerMessage) -> None:
        """Encode and queue it; what cannot be is dropped and its target reported unreachable."""
        local = self._started()
        if self._closed:
            return
        try:
            sent = self._route(message, local)
        except BadMessage as error:
            _log.error("%s to %x dropped: %s", type(message).__name__, message.target, error)
            sent = False
        if not sent:
            self.traffic.of(message.target).send_failures += 1
            local.unreachable(message.target, Loss.DROPPED)

    def _route(self, message: PeerMessage, local: Local) -> bool:
        kind, target = type(message), message.target
        peer = self._peers.get(target)
        if (method := _LETTERS.get(kind)) is not None:
            return peer is not None and peer.send_letter(
                method, encode_frame((message,), hello=local.hello(target))
            )
        frame, urgent = encode_frame((message,)), kind in _URGENT
        if isinstance(message, HeartbeatRequest) and message.round:
            self.traffic.of(target).heartbeat(message.round, self._clock.now())
        if len(frame) > self._limits.max_frame_bytes:
            raise BadMessage(f"{len(frame)} bytes, at most {self._limits.max_frame_bytes} are allowed")
        if (lane := _ANSWERS.get(kind)) is not None and self._servicer is not None:
            sent = self._servicer.send_back(lane, target, frame, urgent=urgent)
            if sent is not None:
                return sent
        lane = lane or _REQUESTS[kind]
        return peer is not None and peer.send(lane, frame, urgent=urgent)

    def flush(self) -> None:
        """Write what waits on all streams, as far as there is room."""
        if self._local is not None:
            self._local.flush()

    async def send_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Stream it over a connection of its own. Raises OSError if it did not end installed."""
        local = self._started()
        peer = self._peers.get(offer.hello.target)
        if peer is None:
            raise ConnectionError(f"no address is known for member {offer.hello.target:x}")
        await send_snapshot(peer.address, offer, chunks, local)

    async def describe(self, address: str, asker: Hello, peer_address: str) -> Description:
        """Ask the member at `address`; works before `start`. Raises OSError if there is no answer."""
        return await ask_describe(address, asker, peer_address, self._wire)

    async def ask(self, target: int, method: str, request: bytes) -> bytes:
        """Have that member carry out a call. Raises OSError."""
        local, peer = self._started(), self._peers.get(target)
        if peer is None:
            raise ConnectionRefusedError(f"no address is known for member {target:x}")
        return await ask(peer.address, local.hello(target), method, request, self._wire)

    async def close(self) -> None:
        """End all streams and stop listening; nothing of it runs on."""
        self._closed = True
        peers, self._peers = list(self._peers.values()), {}
        await asyncio.gather(*(peer.close() for peer in peers), *self._closing)
        await self._wire.stop()
        if self._servicer is not None:
            await self._servicer.close()

    def _started(self) -> Local:
        if self._local is None:
            raise RuntimeError("start the transport first")
        return self._local


def _reason(error: OSError) -> str:
    """The system's own words; the loop's are longer, and name the address again."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)
