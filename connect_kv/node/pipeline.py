"""Where proposals go: into the log if this node leads, to the leader otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from connect_kv.errors import NodeStopped, NotLeader, OutcomeUnknown, Overloaded
from connect_kv.node.dates import Dates
from connect_kv.node.elapsed import Elapsed
from connect_kv.node.forwarding import Forwarder, Intake
from connect_kv.node.parts import Parts
from connect_kv.node.proposals import ProposalQueue, Waiting, join
from connect_kv.node.waiters import EntryWaiters
from connect_kv.peer_protocol import ForwardRequest, ForwardResponse
from connect_kv.raft.types import Entry, EntryId, Role, SnapshotMeta

R = TypeVar("R")


class Pipeline(Generic[R]):
    """Joins what waits into entries, and knows whom to tell what became of each proposal."""

    def __init__(
        self,
        parts: Parts[R],
        dates: Dates,
        *,
        disk_idle: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        """`wake` has `pump` called soon."""
        self._parts = parts
        self._dates = dates
        self._disk_idle = disk_idle
        self._wake = wake
        self._newest = 0
        """Index of the entry this node proposed last, unless it is not waited for any more,"""
        self._newest_at = 0.0
        """and when that was."""
        self._gathering: asyncio.TimerHandle | None = None
        self._elapsed = Elapsed(core=parts.core, clock=parts.clock, history=parts.history, state=parts.state)
        self.waiters: EntryWaiters[R] = EntryWaiters()
        self.queue: ProposalQueue[R] = ProposalQueue(parts.config)
        self._forwarder: Forwarder[R] = Forwarder(
            config=parts.config,
            clock=parts.clock,
            rng=parts.rng,
            waiters=self.waiters,
            applied=parts.history.applied,
        )
        self._intake: Intake[R] = Intake(
            node_id=parts.identity.node_id, clock=parts.clock, respond=parts.transport.send
        )

    @property
    def idle(self) -> bool:
        """Whether nobody waits for the outcome of a proposal."""
        return not (self.queue or self._forwarder.unanswered or self.waiters)

    def add(self, payload: bytes, count: int) -> asyncio.Future[Sequence[R]]:
        """A caller of this node proposes. Raises RequestTooLarge, Overloaded."""
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self.queue.put(Waiting(payload, count, self._parts.clock.now(), future))
        return future

    def receive(self, message: ForwardRequest | ForwardResponse) -> None:
        """A follower passes proposals on, or the leader says what became of ours."""
        if isinstance(message, ForwardRequest):
            self._intake.receive(message, self.queue.put if self._leads else None)
        else:
            self._forwarder.answered(message)

    @property
    def due(self) -> bool:
        """Whether `pump` would move something now. If not, what it waits for is followed by a turn anyway."""
        if self._leads:
            return self.queue.full_batch or (self._disk_idle() and self._gathered())
        if self._parts.core.leader_id is None:
            return False
        small = self.queue.size < self._parts.config.forward_small_bytes
        return not (small and self._forwarder.batch_under_way)

    def pump(self) -> None:
        """Move on what waits, as far as it should go now."""
        if not self.queue:
            return
        if self._leads:
            self._propose()
        elif self._parts.core.leader_id is not None:
            self._forward(self._parts.core.leader_id)

    def leader_changed(self) -> None:
        """Answers of the earlier leader may never come; what followers passed to this node goes back."""
        self._forwarder.doubt()
        if not self._leads:
            self._intake.refuse(self.queue.remove_forwarded())

    def unreachable(self, node_id: int) -> None:
        """Messages to or from that member were lost."""
        self._forwarder.doubt(node_id)

    def membership_changed(self, node_ids: Sequence[int]) -> None:
        """These are the members now."""
        self._intake.keep(node_ids)

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
        return self._parts.core.role is Role.LEADER

    def _propose(self) -> None:
        while self.queue.full_batch or (self._disk_idle() and self._gathered()):
            batch = self.queue.take()
            if not batch:
                return
            try:
                stamped = join(batch, self._dates.now(), self._elapsed.stamp())
                entry = self._parts.core.propose([stamped])
            except (Overloaded, NotLeader):
                # Too much is uncommitted, or leadership is being handed over: they wait.
                self.queue.put_back(batch)
                return
            self._place(batch, entry)
            self._newest, self._newest_at = entry.index, self._parts.clock.now()

    def _gathered(self) -> bool:
        """Whether what waits should become an entry now, the disk being idle.

        One write, one entry: while the disk writes, the next gathers. Where it writes faster than
        callers arrive, that would be an entry for nearly every proposal, and each is a write, a
        message and a slice on every member. So a small one also waits until the one before it has
        been applied and its callers are answered, but not for long: a majority may be far away.
        """
        config = self._parts.config
        if self._newest <= self._parts.history.applied.index:
            return True
        if self.queue.commands >= config.small_entry or self.queue.size >= config.small_entry_bytes:
            return True
        wait = self._newest_at + config.gather_seconds - self._parts.clock.now()
        if wait <= 0:
            return True
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(wait, self._gathered_long_enough)
        return False

    def _gathered_long_enough(self) -> None:
        self._gathering = None
        self._newest = 0  # not by the clock again: what is left of the wait may be too little to pass
        self._wake()

    def _place(self, batch: Sequence[Waiting[R]], entry: EntryId) -> None:
        offset = 0
        forwarded = []
        for waiting in batch:
            if waiting.future is None:
                forwarded.append((waiting, entry, offset))
                self._parts.core.await_commit(entry.index, waiting.source)
            else:
                self.waiters.add(entry, offset, waiting.count, waiting.future)
            offset += waiting.count
        self._intake.appended(forwarded)

    def _forward(self, leader: int) -> None:
        config = self._parts.config
        while self._forwarder.size < config.forward_unanswered_bytes:
            if self._forwarder.batch_under_way and self.queue.size < config.forward_small_bytes:
                return
            batch = self.queue.take()
            if not batch:
                return
            request = self._forwarder.send(batch, source=self._parts.identity.node_id, leader=leader)
            self._parts.transport.send(request)
