"""All that goes out to one member over one connection: two streams and single letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from connect_kv.peer_protocol import HelloReply
from connect_kv.transport.codec import BadMessage, decode_frame
from connect_kv.transport.limits import SERVICE
from connect_kv.transport.line import Line
from connect_kv.transport.link import PeerLink
from connect_kv.transport.local import Local
from connect_kv.transport.stream import Lane, describe_failure, loss_of
from connect_kv.transport.wire import CALL_FAILURES, OutgoingStream

_log = logging.getLogger(__name__)

MAX_LETTERS = 64
"""Unary calls under way to one peer; each lives for `unary_timeout` at most."""


class RemotePeer:
    """The way to one member."""

    def __init__(self, node_id: int, address: str, local: Local) -> None:
        self.node_id = node_id
        self.address = address
        self._local = local
        self._line = Line(address, local.wire)
        self._links = {
            Lane.APPEND: PeerLink(node_id, self._opener(Lane.APPEND), local, eager=True),
            Lane.FORWARD: PeerLink(node_id, self._opener(Lane.FORWARD), local, eager=False),
        }
        self._tasks = {asyncio.create_task(link.run()) for link in self._links.values()}
        self._letters: set[asyncio.Task[None]] = set()

    def _opener(self, lane: Lane) -> Callable[[], Awaitable[OutgoingStream]]:
        async def opened() -> OutgoingStream:
            return (await self._line.up()).stream(f"/{SERVICE}/{lane.value}")

        return opened

    def send(self, lane: Lane, frame: bytes, *, urgent: bool) -> bool:
        """Queue it on that stream; False if it was dropped."""
        return self._links[lane].send(frame, urgent=urgent)

    def send_letter(self, method: str, frame: bytes) -> bool:
        """Deliver one frame by a unary call of its own; False if too many are under way."""
        if len(self._letters) >= MAX_LETTERS or len(frame) > self._local.limits.max_frame_bytes:
            return False
        task = asyncio.create_task(self._deliver(method, frame))
        self._letters.add(task)
        task.add_done_callback(self._letters.discard)
        return True

    async def _deliver(self, method: str, frame: bytes) -> None:
        patience = self._local.limits.unary_timeout
        try:
            async with asyncio.timeout(patience):
                channel = await self._line.up()
            answer = await channel.unary(f"/{SERVICE}/{method}", frame, patience)
            reply: HelloReply | None = decode_frame(answer).hello_reply
        except (*CALL_FAILURES, BadMessage) as error:
            _log.debug(
                "a message was not delivered",
                extra={"member": f"{self.node_id:x}", "method": method, "reason": describe_failure(error)},
            )
            self._local.traffic.of(self.node_id).send_failures += 1
            self._local.unreachable(self.node_id, loss_of(error))
            return
        self._local.traffic.of(self.node_id).sent_bytes += len(frame)
        if reply is not None:
            self._local.receiver.hello_reply(self.node_id, reply)

    async def close(self) -> None:
        """End everything to this peer."""
        tasks = [*self._tasks, *self._letters]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._line.close()
