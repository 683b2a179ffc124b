"""Lessor: the clock of the leases. It proposes to end what has lived its time; apply decides.

Every member notes, by its own monotonic clock, when it applied a grant or renewal, so whoever leads
knows how long each lease has been quiet. Only the leader acts. An expiry names the renewal
the timer saw: if a later one is applied before it, nothing ends.

A lease never ends early: its time starts to count when the renewal was applied, which is after the
client asked for it. Time in which this process did not run is not counted: after a restart the
remainder is what was left at the last applied entry, by log time. A new leader ends nothing
before clients had a moment to reach it.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Awaitable, Callable, Iterable

from connect_kv.errors import ConnectKvError
from connect_kv.interfaces import Clock
from connect_kv.kv.leases import LeaseTable
from connect_kv.rpc.command_pb2 import Command, CommandBatch, LeaseExpire
from connect_kv.rpc.lease_pb2 import LeaseTimeToLiveResponse

_log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two looks at the leases."""
BATCH = 100
"""Leases ended by one command: ten thousand that expire together leave room for writes in between."""
GRACE = 1.0
"""Seconds for which a new leader ends nothing, so that clients can find and reach it."""

Propose = Callable[[bytes, int], Awaitable[object]]
"""Replicates an encoded CommandBatch of so many commands and returns their results."""


class Lessor:
    """Runs on every member, beside the LeaseTable; `run` is its task. Used on the loop only."""

    def __init__(
        self, table: LeaseTable, clock: Clock, propose: Propose, is_leader: Callable[[], bool]
    ) -> None:
        self._table = table
        self._clock = clock
        self._propose = propose
        self._is_leader = is_leader
        self._leads_since: float | None = None
        self._deadlines: dict[int, float] = {}
        """When each lease has lived its time, by the local clock."""
        self._renewals: dict[int, int] = {}
        """The renewal that deadline counts from. The table's may be newer: one that is being applied."""
        self._queue: list[tuple[float, int]] = []
        """A heap with one item a lease, at its deadline or earlier: renewals only move the deadline."""
        self._queued: set[int] = set()
        table.listen(self)

    def loaded(self) -> None:
        """The table was read from a database: go on with what was left to each lease then."""
        now = self._clock.now()
        self._deadlines.clear()
        self._renewals.clear()
        for id in self._table:
            lease = self._table.get(id)
            if lease is not None:
                used = max(0, self._table.log_time - lease.renewed_at) / 1e9
                self._deadlines[id] = now + max(0.0, lease.ttl - used)
                self._renewals[id] = lease.renewal
        self._queue = [(deadline, id) for id, deadline in self._deadlines.items()]
        self._queued = set(self._deadlines)
        heapq.heapify(self._queue)

    def touched(self, leases: Iterable[int]) -> None:
        """These were granted, renewed or ended, just now."""
        now = self._clock.now()
        for id in leases:
            lease = self._table.get(id)
            if lease is None:
                self._deadlines.pop(id, None)
                self._renewals.pop(id, None)
                continue
            self._renewals[id] = lease.renewal
            deadline = self._deadlines[id] = now + lease.ttl
            if id not in self._queued:
                self._queued.add(id)
                heapq.heappush(self._queue, (deadline, id))

    def remaining(self, lease: int) -> float | None:
        """Seconds until it may end, not positive if it is over; None if there is no such lease."""
        deadline = self._deadlines.get(lease)
        return None if deadline is None else deadline - self._clock.now()

    def time_to_live(self, lease: int) -> LeaseTimeToLiveResponse:
        """The answer about a lease, without its keys and header; an unknown one has TTL -1."""
        held, remaining = self._table.get(lease), self.remaining(lease)
        if held is None or remaining is None:
            return LeaseTimeToLiveResponse(ID=lease, TTL=-1)
        return LeaseTimeToLiveResponse(ID=lease, TTL=math.trunc(remaining), grantedTTL=held.ttl)

    async def run(self) -> None:
        """End what has lived its time, while this member leads; until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL)
            while await self._end_some():
                pass

    async def _end_some(self) -> bool:
        """Propose to end one batch and wait for it; False when there is nothing left for now."""
        now = self._clock.now()
        if not self._is_leader():
            self._leads_since = None
            return False
        if self._leads_since is None:
            self._leads_since = now
        if now < self._leads_since + GRACE:
            return False
        over = self._take_over(now)
        if not over:
            return False
        items = [LeaseExpire.Item(id=id, renewal=self._renewals[id]) for id in over if id in self._renewals]
        if not items:
            self._put_back(over)
            return False
        batch = CommandBatch(commands=[Command(lease_expire=LeaseExpire(items=items))])
        try:
            await self._propose(batch.SerializeToString(), 1)
        except ConnectKvError as error:
            _log.warning("leases were not ended, and will be tried again: %s", error)
            return False
        finally:
            self._put_back(over)
        return len(over) == BATCH

    def _take_over(self, now: float) -> list[int]:
        """Take the leases that are over out of the queue, at most a batch of them."""
        over: list[int] = []
        while self._queue and self._queue[0][0] <= now and len(over) < BATCH:
            _, id = heapq.heappop(self._queue)
            deadline = self._deadlines.get(id)
            if deadline is None:
                self._queued.discard(id)
            elif deadline > now:
                heapq.heappush(self._queue, (deadline, id))
            else:
                over.append(id)
        return over

    def _put_back(self, leases: list[int]) -> None:
        """Those that still exist have been renewed, or the proposal failed: look at them again later."""
        for id in leases:
            deadline = self._deadlines.get(id)
            if deadline is None:
                self._queued.discard(id)
            else:
                heapq.heappush(self._queue, (deadline, id))
