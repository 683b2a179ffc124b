"""Sending one snapshot, over a connection of its own, past broken connections."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from connect_kv.http2.metadata import StatusError
from connect_kv.peer_protocol import SnapshotOffer
from connect_kv.transport.codec import BadMessage
from connect_kv.transport.limits import SERVICE
from connect_kv.transport.line import Line
from connect_kv.transport.local import Local
from connect_kv.transport.pieces import closed_after
from connect_kv.transport.snapshot_codec import (
    ASK,
    ChunkSum,
    SnapshotAnswer,
    decode_answer,
    encode_chunks,
    encode_end,
    encode_header,
)
from connect_kv.transport.stream import describe_failure, next_frame
from connect_kv.transport.wire import CALL_FAILURES, OutgoingStream

_log = logging.getLogger(__name__)


async def send_snapshot(
    address: str, offer: SnapshotOffer, pieces: AsyncIterator[bytes], local: Local
) -> None:
    """Return once it is installed there. Raises OSError if it was refused or cannot be finished."""
    sending = _Sending(Line(address, local.wire), offer, pieces, local)
    # Innermost first: what reads the pieces ends before they do.
    async with closed_after(pieces), closed_after(sending.frames):
        try:
            await sending.run()
        finally:
            await sending.line.close()


class _Sending:
    """One snapshot on its way. The pieces come once; the latest frames are kept to be sent again."""

    def __init__(self, line: Line, offer: SnapshotOffer, pieces: AsyncIterator[bytes], local: Local) -> None:
        self.line = line
        self._offer = offer
        self._local = local
        self._total = ChunkSum()
        self.frames = encode_chunks(pieces, self._total, local.limits.max_batch_bytes)
        self._retained: deque[bytes] = deque()
        self._retained_bytes = 0
        self._exhausted = False

    async def run(self) -> None:
        """Stream, and resume where the receiver says, while that gets any further."""
        limits, target = self._local.limits, self._offer.hello.target
        offset, furthest, attempts = 0, 0, 0
        while True:
            attempts += 1
            try:
                answer = await self._stream(offset)
            except (*CALL_FAILURES, BadMessage) as error:
                if attempts >= limits.snapshot_attempts:
                    raise ConnectionError(f"snapshot to {target:x}: {describe_failure(error)}") from error
                _log.info(
                    "a snapshot was interrupted",
                    extra={"member": f"{target:x}", "reason": describe_failure(error)},
                )
                await self._local.clock.sleep(
                    min(limits.reconnect_first * 2 ** (attempts - 1), limits.reconnect_most)
                )
                offset = ASK
                continue
            if self._finished(answer):
                return
            offset = answer.received_chunks
            if offset > furthest:
                furthest, attempts = offset, 0
            if attempts >= limits.snapshot_attempts:
                raise ConnectionError(f"snapshot to {target:x}: no further than chunk {furthest}")

    def _finished(self, answer: SnapshotAnswer) -> bool:
        target = self._offer.hello.target
        if answer.hello is not None:
            self._local.receiver.hello_reply(target, answer.hello)
            raise ConnectionRefusedError(
                f"snapshot to {target:x}: {answer.hello.verdict.name} {answer.hello.detail}"
            )
        if answer.installed:
            return True
        if answer.error:
            raise ConnectionError(f"snapshot to {target:x}: {answer.error}")
        if not self._total.chunks - len(self._retained) <= answer.received_chunks <= self._total.chunks:
            raise ConnectionError(f"snapshot to {target:x}: cannot resume at {answer.received_chunks}")
        return False

    async def _stream(self, offset: int) -> SnapshotAnswer:
        call = (await self.line.up()).stream(f"/{SERVICE}/InstallSnapshot")
        try:
            with suppress(StatusError):  # over early, with an answer or broken: reading it tells
                await call.write(encode_header(self._offer, offset))
                if offset != ASK:
                    await self._write_chunks(call, offset)
                call.end()
            return decode_answer(await next_frame(call, "no answer"))
        finally:
            call.cancel()

    async def _write_chunks(self, call: OutgoingStream, offset: int) -> None:
        while (frame := await self._frame(offset)) is not None:
            await call.write(frame)
            self._local.traffic.of(self._offer.hello.target).sent_bytes += len(frame)
            offset += 1
        await call.write(encode_end(self._total))

    async def _frame(self, number: int) -> bytes | None:
        """The chunk of that number: a kept one, or the next; None after the last."""
        if number < self._total.chunks:
            return self._retained[number - self._total.chunks]
        frame = None if self._exhausted else await anext(self.frames, None)
        if frame is None:
            self._exhausted = True
            return None
        self._retained.append(frame)
        self._retained_bytes += len(frame)
        while self._retained_bytes > self._local.limits.snapshot_retained_bytes and len(self._retained) > 1:
            self._retained_bytes -= len(self._retained.popleft())
        return frame
