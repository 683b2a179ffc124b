"""What every stream needs to know of this side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from connect_kv.credentials import Credentials
from connect_kv.interfaces import Clock, PeerReceiver
from connect_kv.peer_protocol import Hello, Loss, PeerMessage
from connect_kv.raft.messages import HeartbeatResponse
from connect_kv.transport.limits import TransportLimits
from connect_kv.transport.traffic import Traffic
from connect_kv.transport.wire import PeerWire


@dataclass(slots=True, kw_only=True)
class Local:
    """Who we are, who is told, and what is allowed."""

    receiver: PeerReceiver
    hello: Callable[[int], Hello]
    clock: Clock
    wire: PeerWire
    credentials: Credentials | None = None
    """Over TLS: what members' certificates are judged by."""
    traffic: Traffic = field(default_factory=Traffic)
    _unreachable: dict[int, Loss] = field(default_factory=dict)
    _unwritten: list[Callable[[], None]] = field(default_factory=list)

    @property
    def limits(self) -> TransportLimits:
        """Sizes and times."""
        return self.wire.limits

    def receive(self, message: PeerMessage) -> None:
        """Hand it over; the answer to a heartbeat also tells how long that took."""
        if type(message) is HeartbeatResponse:
            self.traffic.of(message.source).answered(message.round, self.clock.now())
        self.receiver.receive(message)

    def write_soon(self, write: Callable[[], None]) -> None:
        """Have it called at the end of this turn of the loop, or with the next `flush` before that."""
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unwritten.append(write)

    def flush(self) -> None:
        """Call what was to be called soon."""
        unwritten, self._unwritten = self._unwritten, []
        for write in unwritten:
            write()

    def unreachable(self, node_id: int, loss: Loss) -> None:
        """Report it soon, once however many messages were lost until then; what tells most about it wins.

        Not at once: `send` is called while its caller is at work on something else.
        """
        if not self._unreachable:
            asyncio.get_running_loop().call_soon(self._report)
        if loss is not Loss.DROPPED or node_id not in self._unreachable:
            self._unreachable[node_id] = loss

    def _report(self) -> None:
        lost, self._unreachable = sorted(self._unreachable.items(), key=lambda one: one[0]), {}
        for node_id, loss in lost:
            self.receiver.unreachable(node_id, loss)
