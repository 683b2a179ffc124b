"""Times of a node: the real clock, the leader's wall clock, and what leaders have measured to have passed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from connect_kv.interfaces import Clock
from connect_kv.node.history import AppliedHistory
from connect_kv.peer_protocol import PeerMessage
from connect_kv.raft.core import RaftCore
from connect_kv.raft.messages import (
    HeartbeatRequest,
    HeartbeatResponse,
    Message,
    ReadIndexResponse,
    VoteResponse,
)
from connect_kv.raft.quorum import committed_index


class SystemClock:
    """This machine's clocks (`interfaces.Clock`)."""

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> int:
        """Nanoseconds since 1970, as this machine believes."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        await asyncio.sleep(seconds)


class LeaderClock:
    """The leader's heartbeats carry its wall clock, and the answers to them repeat the latest one heard.

    A read is answered at a date that a majority has heard. Its barrier was confirmed by a round of
    heartbeats begun after it arrived, so that date is no earlier than its arrival. A later leader was
    elected by a member of that majority, and begins from what its voters say in their votes: so its dates
    are no earlier, though its clock may be behind. Nanoseconds since 1970; in memory alone.
    """

    def __init__(self, core: RaftCore, clock: Clock, node_id: int) -> None:
        self._core = core
        self._clock = clock
        self._node_id = node_id
        self._latest = 0
        """The latest that any leader has said, this one included."""
        self._acknowledged: dict[int, int] = {}
        """What each member has answered to this leader."""
        self._term = 0
        self.read = 0
        """Of the last read barrier that was answered here."""

    def now(self) -> int:
        """For an entry proposed now: the wall clock, but not before a date that was told already."""
        return max(self._clock.wall(), self._latest)

    def sent(self, message: Message) -> Message:
        """The message with the date it is to carry."""
        match message:
            case HeartbeatRequest():
                self._latest = self.now()
                return replace(message, date=self._latest)
            case HeartbeatResponse() | VoteResponse():
                return replace(message, date=self._latest)
            case ReadIndexResponse():
                return replace(message, date=self._agreed())
            case _:
                return message

    def received(self, message: PeerMessage) -> None:
        """Look at the date that a message carries."""
        match message:
            case HeartbeatRequest() | VoteResponse():
                self._latest = max(self._latest, message.date)
            case HeartbeatResponse():
                self._own_term()
                self._acknowledged[message.source] = max(
                    message.date, self._acknowledged.get(message.source, 0)
                )
            case ReadIndexResponse():
                self._latest = max(self._latest, message.date)
                self.read = max(self.read, message.date)
            case _:
                return

    def read_here(self) -> None:
        """This member leads, and a read of its own is answered."""
        if self._core.membership.voters == {self._node_id}:
            self._latest = self.now()
        self.read = max(self.read, self._agreed())

    def _agreed(self) -> int:
        """What a majority has heard."""
        self._own_term()
        return committed_index(self._core.membership, {**self._acknowledged, self._node_id: self._latest})

    def _own_term(self) -> None:
        if self._term != self._core.term:
            self._term = self._core.term
            self._acknowledged.clear()


_NOTHING = 1
"""Says that nothing is known to have passed. Not 0, which is no stamp at all."""


class MeasuredState(Protocol):
    """The part of a ReplicatedState that holds it."""

    def elapsed(self, members: Iterable[int]) -> int | None:
        """As of `last_applied`; None while one of these members would not understand it."""


class MeasuredTime:
    """Stamps entries while this member leads. Between two entries it never counts more than has passed.

    It goes on from the state once all that earlier leaders appended is applied here. Not from a note of
    when this member applied the last of it: what it had not applied yet may have been stamped by a
    leader that had lost time, and what was renewed there would be older by as much at once.
    """

    def __init__(
        self, *, core: RaftCore, clock: Clock, history: AppliedHistory, state: MeasuredState
    ) -> None:
        self._core = core
        self._clock = clock
        self._history = history
        self._state = state
        self._term = 0
        """Of the leadership in which it measures."""
        self._base = 0
        self._since = 0.0

    def stamp(self) -> int:
        """For an entry proposed now, nanoseconds; 0 while a member would not understand it."""
        now, term = self._clock.now(), self._core.term
        if self._term != term:
            known = self._state.elapsed(self._history.membership.node_ids)
            if known is None:
                return 0
            # The first entry of a term is the leader's own: with it, all before is applied.
            if self._history.applied.term != term:
                return _NOTHING
            self._term, self._base, self._since = term, max(_NOTHING, known), now
        return self._base + int((now - self._since) * 1e9)
