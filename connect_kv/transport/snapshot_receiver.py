"""Receiving snapshots: what arrives is verified, put together and handed on piece by piece."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from connect_kv.peer_protocol import HelloVerdict, SnapshotOffer
from connect_kv.rpc import raft_pb2 as pb
from connect_kv.transport.codec import BadMessage
from connect_kv.transport.local import Local
from connect_kv.transport.snapshot_codec import (
    ChunkSum,
    SnapshotAnswer,
    chunk_checksum,
    decode_frame,
    decode_header,
    encode_answer,
)
from connect_kv.transport.stream import StreamBroken, describe_failure, next_frame
from connect_kv.transport.wire import FrameStream

_log = logging.getLogger(__name__)

_PIECES_AHEAD = 2
"""Verified pieces that wait for the receiver; beyond them the stream is not read, and the sender's
writes wait (back-pressure)."""


class _IncomingSnapshot:
    """One snapshot being received, over one stream or, after a break, several."""

    def __init__(self, offer: SnapshotOffer, local: Local) -> None:
        self.offer = offer
        self.total = ChunkSum()
        self.complete = False
        self.feeder: asyncio.Task[None] | None = None
        self.expiry: asyncio.Task[None] | None = None
        self._parts: list[bytes] = []
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_PIECES_AHEAD)
        self._traffic = local.traffic.of(offer.hello.source)
        self.install = asyncio.create_task(self._install(local))

    async def _install(self, local: Local) -> None:
        await local.receiver.receive_snapshot(self.offer, self._handed_on())

    async def _handed_on(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    async def feed(self, stream: FrameStream) -> None:
        """Take frames until the end. Raises StreamBroken or BadMessage; what was counted stays."""
        while not self.complete:
            data = await next_frame(stream, "the snapshot stream ended too soon")
            self._traffic.received_bytes += len(data)
            frame = decode_frame(data)
            if frame.HasField("chunk"):
                await self._add(frame.chunk)
            elif frame.HasField("end"):
                await self._end(frame.end)
            else:
                raise BadMessage("neither chunk nor end")

    async def _add(self, chunk: pb.SnapshotChunk) -> None:
        if chunk.number != self.total.chunks:
            raise BadMessage(f"snapshot chunk {chunk.number} where {self.total.chunks} was due")
        data = chunk.data
        if chunk_checksum(chunk.number, chunk.partial, data) != chunk.checksum:
            raise BadMessage(f"snapshot chunk {chunk.number}: checksum mismatch")
        if chunk.partial:
            self._parts.append(data)
        else:
            # Counted after the wait, in one go: a chunk lost to a cancellation is sent again.
            await self._pieces.put(b"".join([*self._parts, data]) if self._parts else data)
            self._parts.clear()
        self.total.add(chunk.checksum)

    async def _end(self, end: pb.SnapshotEnd) -> None:
        if (end.chunks, end.checksum) != (self.total.chunks, self.total.checksum) or self._parts:
            raise BadMessage("the snapshot's end does not match its chunks")
        await self._pieces.put(None)
        self.complete = True

    async def detach(self) -> None:
        """Stop the stream that feeds this, and the time that runs for another one."""
        running = [task for task in (self.feeder, self.expiry) if task is not None]
        self.feeder = self.expiry = None
        await _cancelled(*running)

    async def abandon(self) -> None:
        """Give it up."""
        await self.detach()
        await _cancelled(self.install)


class SnapshotStreams:
    """At most one snapshot of each sender."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._sessions: dict[int, _IncomingSnapshot] = {}

    async def serve(self, stream: FrameStream, names: frozenset[str] | None = None) -> bytes:
        """One stream; returns the encoded answer. `names`: those in its sender's certificate.

        Raises StreamBroken or BadMessage.
        """
        offer, offset = decode_header(await next_frame(stream, "no snapshot header"))
        offer = replace(offer, hello=replace(offer.hello, certified=names))
        reply = await self._local.receiver.hello(offer.hello)
        if reply.verdict is not HelloVerdict.WELCOME:
            return encode_answer(SnapshotAnswer(hello=reply))
        return encode_answer(await self._receive(offer, offset, stream))

    async def close(self) -> None:
        """Give up everything."""
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.abandon() for session in sessions))

    async def _receive(self, offer: SnapshotOffer, offset: int, stream: FrameStream) -> SnapshotAnswer:
        source = offer.hello.source
        session = self._sessions.get(source)
        if session is not None:
            await session.detach()
        if offset == 0:
            if session is not None and session.complete and not session.install.done():
                self._expire_later(session)
                return SnapshotAnswer(error="an earlier snapshot is still being installed")
            if session is not None:
                await session.abandon()
            session = self._sessions[source] = _IncomingSnapshot(offer, self._local)
        elif session is None or session.offer.snapshot_id != offer.snapshot_id:
            # Only its own sender continues a snapshot, and only the same one.
            if session is not None:
                self._expire_later(session)
            return SnapshotAnswer(received_chunks=0)
        elif session.total.chunks != offset:
            self._expire_later(session)
            if session.install.done():
                return self._outcome(session)
            return SnapshotAnswer(received_chunks=session.total.chunks)
        return await self._feed(session, stream)

    async def _feed(self, session: _IncomingSnapshot, stream: FrameStream) -> SnapshotAnswer:
        feeder = session.feeder = asyncio.create_task(session.feed(stream))
        try:
            await asyncio.wait({feeder, session.install}, return_when=asyncio.FIRST_COMPLETED)
            if not session.install.done():
                if feeder.cancelled():
                    raise StreamBroken("another stream continues this snapshot")
                feeder.result()
                await asyncio.wait({session.install})
            return self._outcome(session)
        finally:
            if session.feeder is feeder:  # no other stream has taken over
                await session.detach()
                self._expire_later(session)

    def _outcome(self, session: _IncomingSnapshot) -> SnapshotAnswer:
        source = session.offer.hello.source
        if session.install.cancelled():
            return SnapshotAnswer(error="given up")
        error = session.install.exception()
        if error is not None:
            _log.warning(
                "a snapshot was refused", extra={"member": f"{source:x}", "reason": describe_failure(error)}
            )
            return SnapshotAnswer(error=describe_failure(error))
        if not session.complete:
            return SnapshotAnswer(error="taken before it was whole")
        return SnapshotAnswer(installed=True, received_chunks=session.total.chunks)

    def _expire_later(self, session: _IncomingSnapshot) -> None:
        if self._sessions.get(session.offer.hello.source) is session and session.expiry is None:
            session.expiry = asyncio.create_task(self._expire(session))

    async def _expire(self, session: _IncomingSnapshot) -> None:
        """Forget a session nobody continues; one that is complete is left to finish."""
        await self._local.clock.sleep(self._local.limits.snapshot_resume)
        if session.complete:
            await asyncio.wait({session.install})
        await _cancelled(session.install)
        if self._sessions.get(session.offer.hello.source) is session:
            del self._sessions[session.offer.hello.source]


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel and wait for the end; what they end with is of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
