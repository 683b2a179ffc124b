"""Read barriers: one confirmation by a majority is shared by all reads that wait for it."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from connect_kv.errors import NoLeader
from connect_kv.events import gradually
from connect_kv.interfaces import Clock
from connect_kv.raft.core import RaftCore
from connect_kv.raft.ready import ReadState


@dataclass(slots=True)
class _Barrier:
    """Reads that share one request. `since` of each read is when it arrived."""

    reads: list[tuple[float, asyncio.Future[int]]]
    context: int = 0
    asked: float = 0.0


class ReadBarriers:
    """At most one request is under way; reads that come meanwhile share the next.

    A read must not join a request that has left already: its index may have been fixed before a write
    that was acknowledged before this read began (thesis 6.4).
    """

    def __init__(
        self, *, core: RaftCore, clock: Clock, rng: random.Random, retry_seconds: float, applied: IndexWaiters
    ) -> None:
        self._core = core
        self._clock = clock
        # Random, so that an answer to this process's predecessor is never taken for one of ours.
        self._context = rng.getrandbits(62)
        self._retry_seconds = retry_seconds
        self._applied = applied
        self._next = _Barrier([])
        self._under_way: _Barrier | None = None
        self._paused = False
        self.slow = 0
        """Requests that were not answered in time, and asked again."""
        self.failed = 0
        """Reads that were told NoLeader."""

    def add(self) -> asyncio.Future[int]:
        """A read begins now. Resolves with an index that is then applied here."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._next.reads.append((self._clock.now(), future))
        return future

    @property
    def due(self) -> bool:
        """Whether `pump` has something to ask for: reads wait, and no barrier is under way."""
        return not (self._under_way or self._paused or not self._next.reads or self._core.leader_id is None)

    def pump(self) -> None:
        """Ask for the next barrier, if it is due."""
        if not self.due:
            return
        barrier, self._next = self._next, _Barrier([])
        barrier.reads = [read for read in barrier.reads if not read[1].done()]
        if not barrier.reads:
            return
        self._context += 1
        barrier.context = self._context
        barrier.asked = self._clock.now()
        self._under_way = barrier
        self._core.read_index(barrier.context)

    def answered(self, state: ReadState, applied: int) -> None:
        """The core knows the index, or abandoned the request; an answer to an older one is ignored."""
        barrier = self._under_way
        if barrier is None or barrier.context != state.context:
            return
        self._under_way = None
        if state.index is None:
            self._next.reads[:0] = barrier.reads
            # Asked again with the next tick: a leader that cannot answer would only say so again.
            self._paused = True
            return
        self._applied.add(state.index, [future for _, future in barrier.reads])
        self._applied.applied(applied)

    def tick(self, leaderless: bool) -> None:
        """Ask again what was lost on the way."""
        self._paused = False
        now = self._clock.now()
        barrier = self._under_way
        if barrier is not None and (leaderless or now - barrier.asked >= self._retry_seconds):
            self._next.reads[:0] = barrier.reads
            self._under_way = None
            self.slow += not leaderless

    def expire(self, before: float) -> None:
        """No leader is known: readers who arrived at or before that time are told NoLeader."""
        reads = self._next.reads
        self._next.reads = [read for read in reads if read[0] > before]
        gradually([future for since, future in reads if since <= before], self._leaderless)

    def _leaderless(self, future: asyncio.Future[int]) -> None:
        if not future.done():
            future.set_exception(NoLeader("no leader is known"))
            self.failed += 1

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all."""
        barriers = [self._next, *([self._under_way] if self._under_way else [])]
        self._next, self._under_way = _Barrier([]), None
        for barrier in barriers:
            for _, future in barrier.reads:
                if not future.done():
                    future.set_exception(error())
        self._applied.fail(error)


class IndexWaiters:
    """Who waits until this node has applied an index."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, list[asyncio.Future[int]]]] = []
        self._count = 0

    def __len__(self) -> int:
        """Indexes that are waited for."""
        return len(self._heap)

    def add(self, index: int, futures: list[asyncio.Future[int]]) -> None:
        """Resolve each of `futures` with `index` once that is applied."""
        self._count += 1
        heapq.heappush(self._heap, (index, self._count, futures))

    def applied(self, index: int) -> None:
        """Release those who wait for `index` or less."""
        while self._heap and self._heap[0][0] <= index:
            needed, _, futures = heapq.heappop(self._heap)
            for future in futures:
                if not future.done():
                    future.set_result(needed)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all, each with an error of its own."""
        heap, self._heap = self._heap, []
        for _, _, futures in heap:
            for future in futures:
                if not future.done():
                    future.set_exception(error())
