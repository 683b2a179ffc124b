"""Proposals on their way from a follower to the leader, and what became of them.

A forwarded proposal is sent once. The leader's answer names the entry it went into; the follower
waits until it has applied that entry itself and takes the results from there. No answer means
that nobody here knows the outcome, and nothing at this level may send it again.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from connect_kv.errors import NotProposed, OutcomeUnknown, Overloaded, RequestTooLarge
from connect_kv.events import gradually
from connect_kv.interfaces import Clock
from connect_kv.node.config import NodeConfig
from connect_kv.node.proposals import EntryWaiters, PendingProposal
from connect_kv.peer_protocol import ForwardOutcome, ForwardRefusal, ForwardRequest, ForwardResponse, Proposal
from connect_kv.raft.types import Entry, EntryId

R = TypeVar("R")

_SEEN_IDS = 65_536
"""Ids remembered for each follower, so that a repeated message is not proposed twice."""


@dataclass(slots=True)
class _Sent(Generic[R]):
    waiting: PendingProposal[R]
    leader: int
    at: float
    doubtful: float | None = None
    """Since when its answer is unlikely to come."""


class Forwarder(Generic[R]):
    """The follower's side."""

    def __init__(
        self,
        *,
        config: NodeConfig,
        clock: Clock,
        rng: random.Random,
        waiters: EntryWaiters[R],
        applied: EntryId,
    ) -> None:
        self._config = config
        self._clock = clock
        # Ids of an earlier run of this node must not be taken for ours by the leader.
        self._id = rng.getrandbits(62)
        self._waiters = waiters
        self._applied = applied
        self._sent: dict[int, _Sent[R]] = {}
        self.size = 0
        """Bytes of proposals not answered yet."""
        self._latest = 0
        self._refused: list[PendingProposal[R]] = []
        self._retained: OrderedDict[int, tuple[EntryId, Sequence[R]]] = OrderedDict()

    @property
    def unanswered(self) -> int:
        """How many proposals wait for the leader's word."""
        return len(self._sent)

    @property
    def batch_under_way(self) -> bool:
        """Whether the latest batch is still unanswered, so that the next should gather."""
        return self._latest in self._sent

    def send(self, batch: Iterable[PendingProposal[R]], *, source: int, leader: int) -> ForwardRequest:
        """What to send for this batch; each of its proposals is now the leader's to answer."""
        now = self._clock.now()
        proposals = []
        for waiting in batch:
            self._id += 1
            self._sent[self._id] = _Sent(waiting, leader, now)
            self.size += len(waiting.payload)
            proposals.append(Proposal(id=self._id, payload=waiting.payload, count=waiting.count))
        self._latest = self._id
        return ForwardRequest(source=source, target=leader, proposals=tuple(proposals))

    def answered(self, response: ForwardResponse) -> None:
        """The leader's word on some of them; on what is not, or no longer, ours it is ignored."""
        for outcome in response.outcomes:
            sent = self._sent.get(outcome.id)
            if sent is None or sent.leader != response.source:
                continue
            self._forget(outcome.id)
            if outcome.entry is not None:
                self._appended(sent.waiting, outcome.entry, outcome.offset)
            elif outcome.refusal is ForwardRefusal.OVERLOADED:
                sent.waiting.fail(Overloaded("the leader has too much waiting already"))
            else:
                self._refused.append(sent.waiting)
        if not self._sent:
            self._retained.clear()

    def take_refused(self) -> list[PendingProposal[R]]:
        """Proposals that certainly were not appended because the asked member does not lead."""
        refused, self._refused = self._refused, []
        return refused

    def applied(self, entries: Sequence[Entry], results: Sequence[Sequence[R]]) -> None:
        """Keep these results while an answer may still name them."""
        # The leader's answer and its appends travel on different streams: an entry may be applied here before
        # this node hears that it holds one of its proposals. Without its results the caller of a write that
        # was done would be told that nobody knows.
        self._applied = entries[-1].id
        if not self._sent:
            return
        for entry, values in zip(entries, results, strict=True):
            self._retained[entry.id.index] = (entry.id, values)
        while len(self._retained) > self._config.retained_results:
            self._retained.popitem(last=False)

    def jumped(self, applied: EntryId) -> None:
        """A snapshot replaced the state up to there."""
        self._applied = applied
        self._retained.clear()

    def doubt(self, leader: int | None = None) -> None:
        """The stream to `leader` broke (None: it may no longer lead): answers may be lost."""
        now = self._clock.now()
        for sent in self._sent.values():
            if sent.doubtful is None and leader in (None, sent.leader):
                sent.doubtful = now

    def tick(self) -> None:
        """Give up on answers that are overdue."""
        now = self._clock.now()
        doubted = now - self._config.election_seconds
        overdue = now - self._config.forward_seconds
        given_up = []
        for id, sent in list(self._sent.items()):
            if sent.at <= overdue or (sent.doubtful is not None and sent.doubtful <= doubted):
                self._forget(id)
                given_up.append(sent.waiting)
        gradually(
            given_up,
            lambda waiting: waiting.fail(
                OutcomeUnknown("the leader did not say what became of the proposal")
            ),
        )
        if not self._sent:
            self._retained.clear()

    def fail(self, sent: Callable[[], Exception], refused: Callable[[], Exception]) -> None:
        """Tell all: those that may have been appended, and those that certainly were not."""
        for item in self._sent.values():
            item.waiting.fail(sent())
        for waiting in self._refused:
            waiting.fail(refused())
        self._sent.clear()
        self._refused.clear()
        self.size = 0

    def _forget(self, id: int) -> None:
        self.size -= len(self._sent.pop(id).waiting.payload)

    def _appended(self, waiting: PendingProposal[R], entry: EntryId, offset: int) -> None:
        if waiting.future is None or waiting.future.done():
            return
        if entry.index > self._applied.index:
            self._waiters.add(entry, offset, waiting.count, waiting.future)
            return
        retained = self._retained.get(entry.index)
        if retained is None:
            waiting.fail(OutcomeUnknown("the answer came long after the entry was applied"))
        elif retained[0] != entry:
            waiting.fail(NotProposed("a new leader replaced the entry before it was committed"))
        else:
            waiting.future.set_result(retained[1][offset : offset + waiting.count])


class ForwardReceiver(Generic[R]):
    """The leader's side: takes proposals from followers, each once, and answers them."""

    def __init__(self, *, node_id: int, clock: Clock, respond: Callable[[ForwardResponse], None]) -> None:
        self._node_id = node_id
        self._clock = clock
        self._respond = respond
        self._seen: dict[int, OrderedDict[int, None]] = {}

    def receive(self, request: ForwardRequest, put: Callable[[PendingProposal[R]], None] | None) -> None:
        """Queue what is new with `put`; None means that this node does not lead."""
        seen = self._seen.setdefault(request.source, OrderedDict())
        refused = []
        now = self._clock.now()
        for proposal in request.proposals:
            if proposal.id in seen:
                continue
            # Noted before it is queued: a message that the transport repeats must not become a second entry.
            seen[proposal.id] = None
            if put is None:
                refused.append(ForwardOutcome(id=proposal.id, refusal=ForwardRefusal.NOT_LEADER))
                continue
            waiting: PendingProposal[R] = PendingProposal(
                proposal.payload, proposal.count, now, source=request.source, id=proposal.id
            )
            try:
                put(waiting)
            except (Overloaded, RequestTooLarge):
                refused.append(ForwardOutcome(id=proposal.id, refusal=ForwardRefusal.OVERLOADED))
        while len(seen) > _SEEN_IDS:
            seen.popitem(last=False)
        self._answer(request.source, refused)

    def appended(self, placed: Iterable[tuple[PendingProposal[R], EntryId, int]]) -> None:
        """Tell the followers where their proposals (with entry and offset) went."""
        outcomes: dict[int, list[ForwardOutcome]] = {}
        for waiting, entry, offset in placed:
            outcome = ForwardOutcome(id=waiting.id, entry=entry, offset=offset)
            outcomes.setdefault(waiting.source, []).append(outcome)
        for source, found in outcomes.items():
            self._answer(source, found)

    def refuse(self, waiting: Iterable[PendingProposal[R]]) -> None:
        """Leadership was lost before these were appended."""
        outcomes: dict[int, list[ForwardOutcome]] = {}
        for item in waiting:
            outcome = ForwardOutcome(id=item.id, refusal=ForwardRefusal.NOT_LEADER)
            outcomes.setdefault(item.source, []).append(outcome)
        for source, found in outcomes.items():
            self._answer(source, found)

    def forget_others(self, node_ids: Iterable[int]) -> None:
        """Forget followers that are not members any more."""
        for source in self._seen.keys() - set(node_ids):
            del self._seen[source]

    def _answer(self, source: int, outcomes: Sequence[ForwardOutcome]) -> None:
        if outcomes:
            self._respond(ForwardResponse(source=self._node_id, target=source, outcomes=tuple(outcomes)))
