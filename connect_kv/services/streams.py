"""Ends streams from the server's side: at shutdown, and when a leader is missing for long.

An etcd client takes a stream that ends with OK for finished work and one that ends with
UNAVAILABLE for a reason to reconnect, so every stream that outlives its server gets the latter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from connect_kv.errors import NodeStopped, NoLeader
from connect_kv.events import gradually


class Streams:
    """Every open stream of this node."""

    def __init__(self, has_leader: Callable[[], bool], *, patience: float) -> None:
        """`patience`: seconds without a leader after which streams that asked for one are ended."""
        self._has_leader = has_leader
        self._patience = patience
        # In the order in which they came: that of a set would depend on addresses in memory.
        self._open: dict[asyncio.Timeout, None] = {}
        self._need_leader: dict[asyncio.Timeout, None] = {}
        self._leaderless: asyncio.TimerHandle | None = None
        self._stopping = False

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    @asynccontextmanager
    async def scope(self, *, needs_leader: bool) -> AsyncIterator[None]:
        """Run a stream inside; it is interrupted with NodeStopped or NoLeader."""
        if self._stopping:
            raise NodeStopped
        if needs_leader and not self._has_leader():
            raise NoLeader
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._open[scope] = None
                if needs_leader:
                    self._need_leader[scope] = None
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise (NodeStopped() if self._stopping else NoLeader()) from None
        finally:
            self._open.pop(scope, None)
            self._need_leader.pop(scope, None)

    def leader_changed(self) -> None:
        """Another leader is known, or none: then those that need one end when their patience does."""
        if self._leaderless is not None:
            self._leaderless.cancel()
            self._leaderless = None
        if not self._has_leader() and not self._stopping:
            loop = asyncio.get_running_loop()
            self._leaderless = loop.call_later(self._patience, self._interrupt, self._need_leader)

    def stop(self) -> None:
        """End them all, and admit no more."""
        self._stopping = True
        if self._leaderless is not None:
            self._leaderless.cancel()
        self._interrupt(self._open)

    def _interrupt(self, scopes: Iterable[asyncio.Timeout]) -> None:
        """End them, a few in each turn of the loop: there may be ten thousand, and an election is due."""
        now = asyncio.get_running_loop().time()

        def end(scope: asyncio.Timeout) -> None:
            if scope in self._open and not scope.expired():
                scope.reschedule(now)

        gradually(list(scopes), end)
