"""The one connection that all calls to a member share."""

from __future__ import annotations

import asyncio

from connect_kv.transport.wire import PeerChannel, PeerWire


class Line:
    """Made when it is needed, and again when it was lost."""

    def __init__(self, address: str, wire: PeerWire) -> None:
        self._address = address
        self._wire = wire
        self._channel: PeerChannel | None = None
        self._former: PeerChannel | None = None
        self._attempt: asyncio.Task[PeerChannel] | None = None

    async def up(self) -> PeerChannel:
        """The connection; who comes while it is being made waits for the same attempt.

        Raises OSError or StatusError if that fails.
        """
        if self._channel is not None and not self._channel.leaving:
            return self._channel
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._make())
            self._attempt.add_done_callback(_looked_at)
        return await asyncio.shield(self._attempt)

    async def _make(self) -> PeerChannel:
        try:
            if self._former is not None:
                await self._former.close()
            # What is under way on the one that leaves may end well yet.
            self._former, self._channel = self._channel, None
            self._channel = await self._wire.open(self._address)
            return self._channel
        finally:
            self._attempt = None

    async def close(self) -> None:
        """Close the connection, and with it every stream on it."""
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.gather(self._attempt, return_exceptions=True)
        channels = [channel for channel in (self._former, self._channel) if channel is not None]
        self._former = self._channel = None
        await asyncio.gather(*(channel.close() for channel in channels))


def _looked_at(attempt: asyncio.Task[PeerChannel]) -> None:
    """Whoever waited for it may have gone: its failure is nobody's then."""
    if not attempt.cancelled():
        attempt.exception()
