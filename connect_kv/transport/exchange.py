"""One established stream, as either side sees it: send what waits, hand over what comes.

Both happen within the turn of the loop that brings it: a message between members passes no task.
"""

from __future__ import annotations

import asyncio

from connect_kv.http2.metadata import StatusError
from connect_kv.peer_protocol import PeerMessage
from connect_kv.transport.codec import BadMessage, decode_frame
from connect_kv.transport.local import Local
from connect_kv.transport.send_queue import SendQueue
from connect_kv.transport.stream import StreamBroken, describe_failure
from connect_kv.transport.traffic import PeerTraffic
from connect_kv.transport.wire import FrameStream


async def exchange(
    stream: FrameStream,
    outbox: SendQueue,
    source: int,
    target: int,
    local: Local,
    traffic: PeerTraffic,
) -> None:
    """Run both directions until the stream is over; always raises StreamBroken or BadMessage.

    Messages must be from `source` to `target`, as introduced at the head of the stream.
    """
    running = _Exchange(stream, outbox, source, target, local, traffic)
    stream.watch(running.changed)
    outbox.watch(running.write_soon)
    traffic.streams += 1
    try:
        running.changed()
        await running.broken
    finally:
        traffic.streams -= 1
        outbox.watch(None)
        stream.watch(None)
        if not running.broken.cancel() and not running.broken.cancelled():
            running.broken.exception()  # it may have broken while this was cancelled


class _Exchange:
    def __init__(
        self,
        stream: FrameStream,
        outbox: SendQueue,
        source: int,
        target: int,
        local: Local,
        traffic: PeerTraffic,
    ) -> None:
        self._stream = stream
        self._outbox = outbox
        self._source = source
        self._target = target
        self._local = local
        self._traffic = traffic
        self._writing = False
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def changed(self) -> None:
        """Take what has come; there may also be room for what waits."""
        stream, traffic = self._stream, self._traffic
        try:
            while not self.broken.done() and (data := stream.poll()) is not None:
                traffic.received_bytes += len(data)
                for message in decode_frame(data).messages:
                    check_ends(message, self._source, self._target)
                    self._local.receive(message)
            if stream.over:
                raise StreamBroken("ended by the other side")
        except Exception as error:
            self._break(error)
        else:
            self.write_soon()

    def write_soon(self) -> None:
        """Send what waits with all that is still added to it in this turn."""
        if not self._writing and self._outbox.waits and not self._stream.backlog:
            self._writing = True
            self._local.write_soon(self._write)

    def _write(self) -> None:
        self._writing = False
        stream, outbox = self._stream, self._outbox
        try:
            while not self.broken.done() and not stream.backlog and (frame := outbox.pop()) is not None:
                stream.push(frame)
                self._traffic.sent_bytes += len(frame)
        except Exception as error:
            self._break(error)

    def _break(self, error: Exception) -> None:
        if self.broken.done():
            return
        if isinstance(error, StatusError):
            broken = StreamBroken(describe_failure(error))
            broken.__cause__ = error
            error = broken
        self.broken.set_exception(error)


def check_ends(message: PeerMessage, source: int, target: int) -> None:
    """Nobody speaks for another member. Raises BadMessage."""
    if message.source != source or message.target != target:
        raise BadMessage(
            f"a message from {message.source:x} to {message.target:x} "
            f"where only {source:x} speaks to {target:x}"
        )
