"""The ReadIndex queues (thesis 6.4): the leader's, and that of a member that asks the leader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Somebody wants to know which index a linearizable read needs."""

    source: int
    """The member that asked; the leader itself for its own reads."""
    context: int


@dataclass(slots=True)
class _Batch:
    """Reads that rely on the same index and are confirmed by the same round."""

    index: int
    round: int
    requests: list[ReadRequest]


class ReadQueue:
    """Reads at the leader, on their way through three stations.

    Early: the leader has not committed in its term, so it does not know what is committed. Fixed:
    the index is the commit index at arrival, and no heartbeat round was begun since. Sent: a round
    was begun after arrival; once a majority answered it, nobody else led when the read arrived.

    A read never joins a round that was begun before it arrived. One round is under way for reads at
    a time: the reads that arrive meanwhile share the next.
    """

    def __init__(self) -> None:
        self._early: list[ReadRequest] = []
        self._fixed: deque[_Batch] = deque()
        self._sent: deque[_Batch] = deque()

    def add(self, request: ReadRequest, index: int | None) -> None:
        """A read arrived; `index` is None while the leader has not committed in its term."""
        if index is None:
            self._early.append(request)
        elif self._fixed and self._fixed[-1].index == index:
            self._fixed[-1].requests.append(request)
        else:
            self._fixed.append(_Batch(index, 0, [request]))

    def fix(self, index: int) -> None:
        """The leader has committed in its term: the early reads rely on `index`."""
        if self._early:
            self._fixed.append(_Batch(index, 0, self._early))
            self._early = []

    @property
    def wants_round(self) -> bool:
        """Whether reads wait and no round is under way for others."""
        return bool(self._fixed) and not self._sent

    @property
    def lone(self) -> bool:
        """Whether one member waits for the next round, and no other."""
        return len(self._fixed) == 1 and len(self._fixed[0].requests) == 1

    @property
    def under_way(self) -> bool:
        """Whether a round that left would confirm reads."""
        return bool(self._sent)

    def begin_round(self, round: int) -> None:
        """A heartbeat round leaves now: it can confirm every read that is fixed."""
        while self._fixed:
            batch = self._fixed.popleft()
            batch.round = round
            self._sent.append(batch)

    def confirmed(self, round: int) -> Iterator[tuple[ReadRequest, int]]:
        """A majority answered `round`: the reads it confirms, each with its index, in order."""
        while self._sent and self._sent[0].round <= round:
            batch = self._sent.popleft()
            for request in batch.requests:
                yield request, batch.index

    def abandoned(self) -> Iterator[ReadRequest]:
        """Leadership is lost: every read waiting."""
        batches, early = (*self._sent, *self._fixed), self._early
        self._sent, self._fixed, self._early = deque(), deque(), []
        for batch in batches:
            yield from batch.requests
        yield from early


class ForwardedReads:
    """Reads a follower has asked its leader about.

    What travels is not the caller's number but one of this queue, counted from a random start: an
    answer to this node's previous life must not be taken for one to a later read.
    """

    def __init__(self, first_ticket: int) -> None:
        self._next_ticket = first_ticket
        self._waiting: dict[int, tuple[int, int]] = {}

    def add(self, context: int, deadline: int) -> int:
        """A read that gives up at tick `deadline`; returns the number to send."""
        ticket = self._next_ticket
        self._next_ticket += 1
        self._waiting[ticket] = (context, deadline)
        return ticket

    def answered(self, ticket: int) -> int | None:
        """The caller's number; None if nobody waits any more."""
        waiting = self._waiting.pop(ticket, None)
        return None if waiting is None else waiting[0]

    def expired(self, tick: int) -> Iterator[int]:
        """Reads whose deadline has come."""
        while self._waiting:
            ticket = next(iter(self._waiting))
            context, deadline = self._waiting[ticket]
            if deadline > tick:
                return
            del self._waiting[ticket]
            yield context

    def abandoned(self) -> Iterator[int]:
        """The leader is gone: every read waiting."""
        waiting, self._waiting = self._waiting, {}
        for context, _ in waiting.values():
            yield context
