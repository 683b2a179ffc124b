"""Where proposals go: into the log if this node leads, to the leader otherwise;
and how followers hear what is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from connect_kv.errors import NodeStopped, NotLeader, OutcomeUnknown, Overloaded
from connect_kv.node.clock import LeaderClock, MeasuredTime
from connect_kv.node.context import NodeContext
from connect_kv.node.forwarding import Forwarder, ForwardReceiver
from connect_kv.node.proposals import EntryWaiters, PendingProposal, ProposalQueue, join
from connect_kv.peer_protocol import ForwardRequest, ForwardResponse
from connect_kv.raft.core import RaftCore
from connect_kv.raft.types import Entry, EntryId, Role, SnapshotMeta

R = TypeVar("R")


class Pipeline(Generic[R]):
    """Joins what waits into entries, and knows whom to tell what became of each proposal."""

    def __init__(
        self,
        context: NodeContext[R],
        leader_clock: LeaderClock,
        *,
        disk_idle: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        """`wake` has `pump` called soon."""
        self._context = context
        self._leader_clock = leader_clock
        self._disk_idle = disk_idle
        self._wake = wake
        self._newest = 0
        """Index of the entry this node proposed last, unless it is not waited for any more."""
        self._newest_at = 0.0
        """When the entry `_newest` was proposed, by the clock."""
        self._gathering: asyncio.TimerHandle | None = None
        self._measured_time = MeasuredTime(
            core=context.core, clock=context.clock, history=context.history, state=context.state
        )
        self.waiters: EntryWaiters[R] = EntryWaiters()
        self.queue: ProposalQueue[R] = ProposalQueue(context.config)
        self._forwarder: Forwarder[R] = Forwarder(
            config=context.config,
            clock=context.clock,
            rng=context.rng,
            waiters=self.waiters,
            applied=context.history.applied,
        )
        self._forward_receiver: ForwardReceiver[R] = ForwardReceiver(
            node_id=context.identity.node_id, clock=context.clock, respond=context.transport.send
        )

    @property
    def idle(self) -> bool:
        """Whether nobody waits for the outcome of a proposal."""
        return not (self.queue or self._forwarder.unanswered or self.waiters)

    def add(self, payload: bytes, count: int) -> asyncio.Future[Sequence[R]]:
        """A caller of this node proposes. Raises RequestTooLarge, Overloaded."""
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self.queue.put(PendingProposal(payload, count, self._context.clock.now(), future))
        return future

    def receive(self, message: ForwardRequest | ForwardResponse) -> None:
        """A follower passes proposals on, or the leader says what became of ours."""
        if isinstance(message, ForwardRequest):
            self._forward_receiver.receive(message, self.queue.put if self._leads else None)
        else:
            self._forwarder.answered(message)

    @property
    def due(self) -> bool:
        """Whether `pump` would move something now. If not, what it waits for is followed by a turn anyway."""
        if self._leads:
            return self.queue.full_batch or (self._disk_idle() and self._gathered())
        if self._context.core.leader_id is None:
            return False
        small = self.queue.size < self._context.config.forward_small_bytes
        return not (small and self._forwarder.batch_under_way)

    def pump(self) -> None:
        """Move on what waits, as far as it should go now."""
        if not self.queue:
            return
        if self._leads:
            self._propose()
        elif self._context.core.leader_id is not None:
            self._forward(self._context.core.leader_id)

    def leader_changed(self) -> None:
        """Answers of the earlier leader may never come; what followers passed to this node goes back."""
        # Doubted, not given up: the answers may be on their way. What followers gave this node is given back
        # and not passed on from here: each of them waits for the word of the node it asked.
        self._forwarder.doubt()
        if not self._leads:
            self._forward_receiver.refuse(self.queue.remove_forwarded())

    def unreachable(self, node_id: int) -> None:
        """Messages to or from that member were lost."""
        self._forwarder.doubt(node_id)

    def membership_changed(self, node_ids: Sequence[int]) -> None:
        """These are the members now."""
        self._forward_receiver.forget_others(node_ids)

    def tick(self) -> None:
        """Give up on what is overdue, and send again what was certainly not appended."""
        self._forwarder.tick()
        self.queue.put_back(self._forwarder.take_refused())

    def applied(self, entries: Sequence[Entry], results: Sequence[Sequence[R]]) -> None:
        """These entries have been applied here."""
        self._forwarder.applied(entries, results)
        self.waiters.applied(entries, results)

    def jumped(self, meta: SnapshotMeta) -> None:
        """A snapshot replaced the state."""
        self._forwarder.jumped(meta.last)
        self.waiters.jumped(meta.last.index)

    def end(self, reason: str) -> None:
        """Nothing more will happen on this node: what may have been appended is unknown."""
        if self._gathering is not None:
            self._gathering.cancel()
        unknown, never = lambda: OutcomeUnknown(reason), lambda: NodeStopped(reason)
        self.queue.fail(never)
        self._forwarder.fail(unknown, never)
        self.waiters.fail(unknown)

    @property
    def _leads(self) -> bool:
        return self._context.core.role is Role.LEADER

    def _propose(self) -> None:
        while self.queue.full_batch or (self._disk_idle() and self._gathered()):
            batch = self.queue.take()
            if not batch:
                return
            try:
                stamped = join(batch, self._leader_clock.now(), self._measured_time.stamp())
                entry = self._context.core.propose([stamped])
            except (Overloaded, NotLeader):
                # Too much is uncommitted, or leadership is being handed over: they wait.
                self.queue.put_back(batch)
                return
            self._place(batch, entry)
            self._newest, self._newest_at = entry.index, self._context.clock.now()

    def _gathered(self) -> bool:
        """Whether what waits should become an entry now, the disk being idle.

        One write, one entry: while the disk writes, the next gathers. Where it writes faster than
        callers arrive, that would be an entry for nearly every proposal, and each is a write, a
        message and a slice on every member. So a small one also waits until the one before it has
        been applied and its callers are answered, but not for long: a majority may be far away.
        """
        config = self._context.config
        if self._newest <= self._context.history.applied.index:
            return True
        if self.queue.commands >= config.small_entry or self.queue.size >= config.small_entry_bytes:
            return True
        wait = self._newest_at + config.gather_seconds - self._context.clock.now()
        if wait <= 0:
            return True
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(wait, self._gathered_long_enough)
        return False

    def _gathered_long_enough(self) -> None:
        self._gathering = None
        self._newest = 0  # not by the clock again: what is left of the wait may be too little to pass
        self._wake()

    def _place(self, batch: Sequence[PendingProposal[R]], entry: EntryId) -> None:
        offset = 0
        forwarded = []
        for waiting in batch:
            if waiting.future is None:
                forwarded.append((waiting, entry, offset))
                self._context.core.await_commit(entry.index, waiting.source)
            else:
                self.waiters.add(entry, offset, waiting.count, waiting.future)
            offset += waiting.count
        self._forward_receiver.appended(forwarded)

    def _forward(self, leader: int) -> None:
        config = self._context.config
        while self._forwarder.size < config.forward_unanswered_bytes:
            if self._forwarder.batch_under_way and self.queue.size < config.forward_small_bytes:
                return
            batch = self.queue.take()
            if not batch:
                return
            request = self._forwarder.send(batch, source=self._context.identity.node_id, leader=leader)
            self._context.transport.send(request)


COMMIT_PAUSE_SECONDS = 0.002
"""How long the next append may take that tells it as well: one caller that writes again as soon as it was
answered does so within this time. What waits for it meanwhile at followers are watchers and serializable
reads; a follower's own callers are waited for by name, and a linearizable read's round tells it too."""


class CommitNotifier:
    """A message to each follower for each lone write costs all members more than it is worth."""

    def __init__(self, core: RaftCore, wake: Callable[[], None]) -> None:
        """`wake` has what the core says next carried out."""
        self._core = core
        self._wake = wake
        self._index = 0
        self._pause: asyncio.TimerHandle | None = None

    def committed(self, index: int) -> None:
        """Followers are to hear of it within two pauses."""
        self._index = index
        if self._pause is None:
            self._begin(index)

    def end(self) -> None:
        """Nothing more is told."""
        if self._pause is not None:
            self._pause.cancel()

    def _begin(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        self._pause = loop.call_later(COMMIT_PAUSE_SECONDS, self._paused, index)

    def _paused(self, index: int) -> None:
        """Tell what was committed before this pause and not told since; what came in it has the next."""
        self._pause = None
        if self._core.await_commit(index):
            self._wake()
        if index < self._index:
            self._begin(self._index)
