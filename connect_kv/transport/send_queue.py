"""The bounded queue in front of one stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from connect_kv.transport.limits import TransportLimits


class SendQueue:
    """Encoded frames waiting for one stream; full means dropped, which Raft repairs.

    Urgent ones (heartbeats and their answers) overtake the others, so that megabytes of appends to
    a slow peer never look like a dead leader; they have a bound of their own. Raft does not rely on
    the order between the two (§5.2 and §5.3 each stand alone).
    """

    def __init__(self, limits: TransportLimits) -> None:
        self._limits = limits
        self._urgent: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._bulk_bytes = 0
        self._filled = asyncio.Event()
        self._closed = False
        self._watcher: Callable[[], None] | None = None

    def put(self, frame: bytes, *, urgent: bool) -> bool:
        """Queue it, or say False: full, or larger than any peer would take."""
        size = len(frame)
        if size > self._limits.max_frame_bytes:
            return False
        queue = self._urgent if urgent else self._bulk
        if len(queue) >= self._limits.queue_messages:
            return False
        if not urgent:
            if self._bulk and self._bulk_bytes + size > self._limits.queue_bytes:
                return False
            self._bulk_bytes += size
        queue.append(frame)
        self._tell()
        return True

    def pop(self) -> bytes | None:
        """What waits, joined up to a batch; None if nothing does. Raises ConnectionError once closed."""
        if self._closed:
            raise ConnectionError("closed on this side")
        if not (self._urgent or self._bulk):
            return None
        frame = self._pop()
        if not (self._urgent or self._bulk):
            return frame
        frames, size = [frame], len(frame)
        while self._urgent or self._bulk:
            size += len(self._urgent[0] if self._urgent else self._bulk[0])
            if size > self._limits.max_batch_bytes:
                break
            frames.append(self._pop())
        return b"".join(frames)

    @property
    def waits(self) -> bool:
        """Whether `pop` would give something, or say that it is closed."""
        return bool(self._urgent or self._bulk) or self._closed

    def watch(self, watcher: Callable[[], None] | None) -> None:
        """Have it called whenever something is put in, and when it is closed."""
        self._watcher = watcher

    async def filled(self) -> None:
        """Wait until something waits."""
        while not self.waits:
            self._filled.clear()
            await self._filled.wait()

    def close(self) -> None:
        """End the stream behind this queue; what waits is lost."""
        self._closed = True
        self._tell()

    def clear(self) -> None:
        """Drop everything."""
        self._urgent.clear()
        self._bulk.clear()
        self._bulk_bytes = 0

    def _tell(self) -> None:
        self._filled.set()
        if self._watcher is not None:
            self._watcher()

    def _pop(self) -> bytes:
        if self._urgent:
            return self._urgent.popleft()
        frame = self._bulk.popleft()
        self._bulk_bytes -= len(frame)
        return frame
