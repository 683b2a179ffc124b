"""Dates: at what time queries are asked, by the leader's clock; it goes on while nobody writes."""

from __future__ import annotations

from dataclasses import replace

from connect_kv.interfaces import Clock
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


class Dates:
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
        self._heard = 0
        """The latest that any leader has said, this one included."""
        self._acknowledged: dict[int, int] = {}
        """What each member has answered to this leader."""
        self._term = 0
        self.read = 0
        """Of the last read barrier that was answered here."""

    def now(self) -> int:
        """For an entry proposed now: the wall clock, but not before a date that was told already."""
        return max(self._clock.wall(), self._heard)

    def sent(self, message: Message) -> Message:
        """The message with the date it is to carry."""
        match message:
            case HeartbeatRequest():
                self._heard = self.now()
                return replace(message, date=self._heard)
            case HeartbeatResponse() | VoteResponse():
                return replace(message, date=self._heard)
            case ReadIndexResponse():
                return replace(message, date=self._agreed())
            case _:
                return message

    def received(self, message: PeerMessage) -> None:
        """Look at the date that a message carries."""
        match message:
            case HeartbeatRequest() | VoteResponse():
                self._heard = max(self._heard, message.date)
            case HeartbeatResponse():
                self._own_term()
                self._acknowledged[message.source] = max(
                    message.date, self._acknowledged.get(message.source, 0)
                )
            case ReadIndexResponse():
                self._heard = max(self._heard, message.date)
                self.read = max(self.read, message.date)
            case _:
                return

    def read_here(self) -> None:
        """This member leads, and a read of its own is answered."""
        if self._core.membership.voters == {self._node_id}:
            self._heard = self.now()
        self.read = max(self.read, self._agreed())

    def _agreed(self) -> int:
        """What a majority has heard."""
        self._own_term()
        return committed_index(self._core.membership, {**self._acknowledged, self._node_id: self._heard})

    def _own_term(self) -> None:
        if self._term != self._core.term:
            self._term = self._core.term
            self._acknowledged.clear()
