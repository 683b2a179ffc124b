"""AutoCompactor: forgets history by itself, either what is older than a period or all but the last revisions.

Every member takes samples, so that a new leader knows the past; only the leader proposes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connect_kv.errors import ConnectKvError
from connect_kv.interfaces import Clock
from connect_kv.kv.proposer import BY_SERVER
from connect_kv.rpc.command_pb2 import Command, CommandBatch
from connect_kv.rpc.kv_pb2 import CompactionRequest

_log = logging.getLogger(__name__)

LONGEST_INTERVAL = 3600.0
"""Seconds between compactions at most, however long the period."""
REVISION_INTERVAL = 300.0
"""Seconds between two looks when revisions are counted."""
_SAMPLES_PER_INTERVAL = 10

Propose = Callable[[bytes, int], Awaitable[object]]
"""Replicates an encoded CommandBatch of so many commands and returns their results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What to keep; exactly one of the two is given."""

    seconds: float = 0
    """History of so long ago."""
    revisions: int = 0
    """So many of the last revisions."""

    def __post_init__(self) -> None:
        if (self.seconds > 0) == (self.revisions > 0):
            raise ValueError("automatic compaction keeps either a number of seconds or a number of revisions")


class AutoCompactor:
    """`run` is its task, on every member. Used on the loop only."""

    def __init__(
        self,
        retention: Retention,
        *,
        clock: Clock,
        revision: Callable[[], int],
        propose: Propose,
        is_leader: Callable[[], bool],
    ) -> None:
        self._retention = retention
        self._clock = clock
        self._revision = revision
        self._propose = propose
        self._is_leader = is_leader
        self._interval = min(retention.seconds, LONGEST_INTERVAL)
        self._samples: deque[tuple[float, int]] = deque()
        self._done = 0
        """The last revision compacted from here."""
        self._done_at = clock.now()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        pause = self._interval / _SAMPLES_PER_INTERVAL if self._retention.seconds else REVISION_INTERVAL
        while True:
            wanted = self._by_age() if self._retention.seconds else self._by_number()
            if wanted > self._done and self._is_leader() and await self._compact(wanted):
                self._done = wanted
                self._done_at = self._clock.now()
            await self._clock.sleep(pause)

    def _by_number(self) -> int:
        return self._revision() - self._retention.revisions

    def _by_age(self) -> int:
        """The newest revision that is old enough; 0 as long as none is, or none is due."""
        now = self._clock.now()
        self._samples.append((now, self._revision()))
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._retention.seconds:
            self._samples.popleft()
        taken, revision = self._samples[0]
        due = now - self._done_at >= self._interval and now - taken >= self._retention.seconds
        return revision if due else 0

    async def _compact(self, revision: int) -> bool:
        """Whether that revision is compacted now, by this or by somebody else."""
        batch = CommandBatch(
            commands=[Command(compact=CompactionRequest(revision=revision), judged=BY_SERVER)]
        )
        try:
            await self._propose(batch.SerializeToString(), 1)
        except ConnectKvError as error:
            _log.warning("history was not compacted, and will be later: %s", error)
            return False
        return True
