"""Lessor: the clock of the leases. It proposes to end what has lived its time; apply decides.

Every member notes, by its own monotonic clock, when it applied a grant or renewal, so whoever leads
knows how long each lease has been quiet. Only the leader acts. An expiry names the renewal
the timer saw: if a later one is applied before it, nothing ends.

A lease never ends early: its time starts to count when the renewal was applied, which is after the
client asked for it. Time in which this process did not run is not counted: after a restart the
remainder is what was left at the last applied entry, as measured (`Moment`); no wall clock has a say.
A new leader ends nothing before clients had a moment to reach it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable

from connect_kv.errors import ConnectKvError
from connect_kv.interfaces import Clock
from connect_kv.kv.deadlines import LeaseDeadlines
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
CHECKPOINT = 60.0
"""Seconds after which an entry says what has passed, if there are leases: should all members end before the
next one, no more than that is forgotten.
"""

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
        self._said_at = 0.0
        """When this leader began, or last had an entry written for the time it carries."""
        self._deadlines = LeaseDeadlines()
        """When each lease has lived its time, by the local clock."""
        self._renewals: dict[int, int] = {}
        """The renewal that deadline counts from. The table's may be newer: one that is being applied."""
        table.listen(self)

    def loaded(self) -> None:
        """The table was read from a database: go on with what was left to each lease then."""
        now = self._clock.now()
        deadlines: dict[int, float] = {}
        self._renewals.clear()
        for id in self._table:
            lease = self._table.get(id)
            if lease is not None:
                deadlines[id] = now + max(0.0, lease.ttl - self._table.used(lease))
                self._renewals[id] = lease.renewal
        self._deadlines.replace(deadlines)

    def touched(self, leases: Iterable[int]) -> None:
        """These were granted, renewed or ended, just now."""
        now = self._clock.now()
        for id in leases:
            lease = self._table.get(id)
            if lease is None:
                self._deadlines.remove(id)
                self._renewals.pop(id, None)
            else:
                self._deadlines.set(id, now + lease.ttl)
                self._renewals[id] = lease.renewal

    def remaining(self, lease: int) -> float | None:
        """Seconds until it may end, not positive if it is over; None if there is no such lease."""
        deadline = self._deadlines.get(lease)
        return None if deadline is None else deadline - self._clock.now()

    def time_to_live(self, lease: int) -> LeaseTimeToLiveResponse:
        """The answer about a lease, without its keys and header; an unknown one has TTL -1."""
        held, remaining = self._table.get(lease), self.remaining(lease)
        if held is None or remaining is None:
            return LeaseTimeToLiveResponse(ID=lease, TTL=-1)
        # Over but not ended, it has no time left; less than none would be taken for "no such lease".
        left = max(0, math.trunc(remaining))
        return LeaseTimeToLiveResponse(ID=lease, TTL=left, grantedTTL=held.ttl)

    @property
    def queued(self) -> int:
        """How much the timer keeps: of the order of the leases there are."""
        return len(self._deadlines)

    async def run(self) -> None:
        """End what has lived its time, while this member leads; until cancelled."""
        while True:
            await self._clock.sleep(INTERVAL)
            while await self._end_some():
                pass
            await self._say_time()

    async def _end_some(self) -> bool:
        """Propose to end one batch and wait for it; False when there is nothing left for now."""
        now = self._clock.now()
        if not self._is_leader():
            self._leads_since = None
            return False
        if self._leads_since is None:
            self._leads_since = self._said_at = now
        if now < self._leads_since + GRACE:
            return False
        over = self._deadlines.take(now, BATCH)
        if not over:
            return False
        items = [LeaseExpire.Item(id=id, renewal=self._renewals[id]) for id in over]
        try:
            ended = await self._end(items)
        finally:
            # Those that are still there have been renewed, or the proposal failed.
            self._deadlines.put_back(over)
        return ended and len(over) == BATCH

    async def _say_time(self) -> None:
        """Have an entry written now and then: every entry says what has passed."""
        now = self._clock.now()
        if self._leads_since is not None and len(self._table) and now >= self._said_at + CHECKPOINT:
            self._said_at = now
            await self._end([])

    async def _end(self, items: list[LeaseExpire.Item]) -> bool:
        """Whether that was applied."""
        batch = CommandBatch(commands=[Command(lease_expire=LeaseExpire(items=items))])
        try:
            await self._propose(batch.SerializeToString(), 1)
        except ConnectKvError as error:
            _log.warning("leases were not ended, and will be tried again: %s", error)
            return False
        return True
