"""The activities around the core: inputs, the log's disk, applying. Only this moves bytes for Raft.

They overlap: while the disk writes, messages are answered and the next batch gathers; while a slice
is applied, both go on. Everything that promises something waits for the disk (`Ready`), and
everything that is told to a caller waits for apply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from connect_kv.errors import ConnectKvError, CorruptStorage, MemberRemoved, NodeStopped, StorageError
from connect_kv.events import Signal
from connect_kv.node.applier import Applier, Compactor
from connect_kv.node.clock import LeaderClock
from connect_kv.node.context import NodeContext
from connect_kv.node.health import DiskHealth, Leadership, watch_loop, watch_space
from connect_kv.node.log_writer import LogWriter
from connect_kv.node.membership import log_changes
from connect_kv.node.peers import Peers
from connect_kv.node.pipeline import CommitNotifier, Pipeline
from connect_kv.node.reads import IndexWaiters, ReadBarriers
from connect_kv.node.snapshots import SnapshotReceiver, SnapshotSender
from connect_kv.node.status import Availability, Contacts
from connect_kv.peer_protocol import ForwardRequest, ForwardResponse, Loss, PeerMessage, SnapshotOffer
from connect_kv.raft.messages import Message
from connect_kv.raft.ready import LogRead, Ready
from connect_kv.raft.types import Entry, Role, SnapshotMeta

R = TypeVar("R")

logger = logging.getLogger(__name__)

FEW_ENTRIES = 2
"""That may be applied a little later."""


@dataclass(frozen=True, slots=True)
class _Watcher:
    condition: Callable[[], bool]
    future: asyncio.Future[None]


class Driver(Generic[R]):
    """Owns one core and everything that waits for it. All methods are called on the loop."""

    def __init__(
        self,
        context: NodeContext[R],
        *,
        free_bytes: Callable[[], tuple[int, int]] | None,
        space_low: Callable[[bool, int], None],
    ) -> None:
        self._context = context
        self._core = context.core
        self._free_bytes = free_bytes
        self._space_low = space_low
        self._inbox: list[PeerMessage] = []
        self._tick_due = False
        self._ticks = 0
        self._turn_due = False
        """Something waits that `_turn` looks at,"""
        self._scheduled = False
        """and one is to be taken soon."""
        self._listening = False
        self._own_context = copy_context()
        self._group: asyncio.TaskGroup | None = None
        self._failure: asyncio.Future[ConnectKvError] = asyncio.get_running_loop().create_future()
        self.contacts = Contacts(context.clock)
        self.leader_changed = Signal()
        self.membership_changed = Signal()
        self._watchers: list[_Watcher] = []
        self.running = asyncio.Event()
        """Set once the activities run."""
        config = context.config
        self.writer = LogWriter(
            log=context.log,
            worker=context.log_worker,
            clock=context.clock,
            metrics=context.metrics,
            install=self._install,
            persisted=self._persisted,
            written=self._written,
            spans=context.spans,
        )
        self.applier: Applier[R] = Applier(context, self._applied)
        self._index_waiters = IndexWaiters()
        self.reads = ReadBarriers(
            core=context.core,
            clock=context.clock,
            rng=context.rng,
            retry_seconds=config.election_seconds / 2,
            applied=self._index_waiters,
        )
        self.leader_clock = LeaderClock(context.core, context.clock, context.identity.node_id)
        self.pipeline: Pipeline[R] = Pipeline(
            context, self.leader_clock, disk_idle=lambda: self.writer.idle, wake=self.wake
        )
        self.leadership = Leadership(context.core, context.clock)
        self._commit_notifier = CommitNotifier(context.core, self.wake)
        self.peers: Peers[R] = Peers(
            context,
            self.contacts,
            receive=self._receive,
            unreachable=self._unreachable,
            snapshot=self._receive_snapshot,
            confirmed=self._update_eligibility,
            fail=self._refused,
            spawn=self._spawn,
        )
        self._sender: SnapshotSender[R] = SnapshotSender(
            context, self.applier, hello=self.peers.introduce, spawn=self._spawn, wake=self.wake
        )
        self.compactor: Compactor[R] = Compactor(context, self._sender.held)
        self._receiver: SnapshotReceiver[R] = SnapshotReceiver(
            context,
            self.applier,
            self.compactor,
            step=self._step_now,
            before_switch=self._sender.cancel,
            jumped=self._jumped,
        )
        self._membership = context.history.membership
        self.health = DiskHealth(
            clock=context.clock, oldest=lambda: self.writer.oldest, limit=2 * config.election_seconds
        )
        self.availability: Availability[R] = Availability(
            context, self.contacts, self.leadership, disk_sick=lambda: self.health.sick
        )

    async def run(self) -> None:
        """Run all activities until one fails; raises an ExceptionGroup with what it raised first."""
        config, clock = self._context.config, self._context.clock
        self._own_context = copy_context()
        self._update_eligibility()
        async with asyncio.TaskGroup() as group:
            self._group = group
            activities = [
                self._tick(),
                self._until_failure(),
                self.writer.run(),
                self.applier.run(),
                self.compactor.run(),
            ]
            if config.watchdog_seconds:
                watch = watch_loop(
                    clock, self._context.metrics, every=config.watchdog_seconds, limit=config.stall_seconds
                )
                activities.append(watch)
            if self._free_bytes is not None:
                activities.append(
                    watch_space(
                        clock=clock,
                        worker=self._context.log_worker,
                        free_bytes=self._free_bytes,
                        every=config.space_seconds,
                        report=self._space_low,
                    )
                )
            for activity in activities:
                group.create_task(activity)
            self.running.set()

    def begin(self) -> None:
        """The transport listens: take inputs from now on."""
        self.peers.follow_membership()
        self._listening = self._turn_due = True
        self._schedule()

    def wake(self) -> None:
        """Something changed for the core: take a turn soon."""
        self._turn_due = True
        if self._listening and not self._scheduled:
            self._schedule()

    def fail(self, error: ConnectKvError) -> None:
        """The node must stop, for this reason."""
        if not self._failure.done():
            self._failure.set_result(error)

    def end(self, reason: str) -> None:
        """The activities have ended: tell all who wait."""
        self._group = None
        self._commit_notifier.end()
        self.pipeline.end(reason)
        self.reads.fail(lambda: NodeStopped(reason))
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.future.done():
                watcher.future.set_exception(NodeStopped(reason))

    def submit(self, payload: bytes, count: int) -> asyncio.Future[Sequence[R]]:
        """A caller of this node proposes. Raises RequestTooLarge, Overloaded."""
        future = self.pipeline.add(payload, count)
        # While the disk writes, or the entry before is on its way, what follows gathers, and what it
        # waits for takes a turn when it comes: a turn for each proposal would be one for nothing.
        if self.pipeline.due:
            self.wake()
        return future

    def submit_read(self) -> asyncio.Future[int]:
        """A caller of this node reads."""
        future = self.reads.add()
        # Behind a barrier under way it gathers: the turn that brings the answer is followed by another.
        if self.reads.due:
            self.wake()
        return future

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds; looked at after every turn, so at least once a tick, and every applied slice.

        It is not looked at again before the waiting task runs. Raises NodeStopped.
        """
        while not condition():
            watcher = _Watcher(condition, asyncio.get_running_loop().create_future())
            self._watchers.append(watcher)
            await watcher.future

    # Inputs

    def _schedule(self) -> None:
        # A callback and no task that waits: there are several turns for each write. Whoever wakes may be
        # anybody; what this does is the node's own.
        self._scheduled = True
        asyncio.get_running_loop().call_soon(self._take_turn, context=self._own_context)

    def _take_turn(self) -> None:
        self._scheduled = False
        # Done, or cancelled with the other activities: then this one ends, too.
        if not self._turn_due or self._failure.done():
            return
        try:
            self._turn()
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)  # which ends all activities

    def _turn(self) -> None:
        """Feed the core everything that waits, then do what it says."""
        self._turn_due = False
        # The order matters. Messages before the tick: a heartbeat that waits in the inbox, because this
        # process stood still, must count before the election timeout that it prevents. The change of leader
        # before the pump: it gives back what followers had passed to this node. Pumped first, a node that has
        # just lost its leadership would pass a follower's proposal on under a number of its own: it may be
        # executed, and the follower, who waits for this node's word, would have to say that nobody knows.
        # The pumps before the drain: all that came together leaves in one message and with one write.
        messages, self._inbox = self._inbox, []
        for message in messages:
            if isinstance(message, ForwardRequest | ForwardResponse):
                self.pipeline.receive(message)
            else:
                self._core.step(message)
        if self._tick_due:
            self._tick_due = False
            self._core.tick()
            self._on_tick()
        self._follow_leader()
        self.pipeline.pump()
        self.reads.pump()
        self._drain()
        self._follow_leader()
        if self._watchers:
            self._notify()

    def _drain(self) -> None:
        transport = self._context.transport
        while (ready := self._core.ready()) is not None:
            if ready.messages:
                for message in ready.messages:
                    transport.send(self.leader_clock.sent(message))
                transport.flush()  # others have work to do while the disk writes here
            if ready.install is not None:
                self._receiver.install_requested(ready.install)
            self.writer.submit(ready)
            for read in ready.reads:
                if self._core.role is Role.LEADER:
                    self.leader_clock.read_here()
                self.reads.answered(read, self._context.history.applied.index)
                if self.reads.due:
                    self.wake()
            for log_read in ready.log_reads:
                self._spawn(self._load(log_read))
            for target in ready.snapshots:
                self._sender.start(target)
        self.peers.follow_membership()
        waiting = self._core.apply_index - self._context.history.applied.index
        if waiting > 0 and not self._apply_later(waiting):
            self.applier.wake()

    def _apply_later(self, entries: int) -> bool:
        """Whether these wait until the write that has just begun returns, which wakes the applier.

        Where nobody waits for them. A follower of a lone caller is told of the entry before with each append:
        applied at once, it would keep the interpreter from the thread that writes the append, for whose
        acknowledgement everybody waits.
        """
        return (
            entries <= FEW_ENTRIES
            and not self.leadership.leads
            and self.writer.young
            and self.pipeline.idle
            and not self._index_waiters
            and not self._watchers
        )

    async def _tick(self) -> None:
        tick, clock = self._context.config.tick_seconds, self._context.clock
        heartbeat = self._context.config.raft.heartbeat_ticks * tick
        due = clock.now() + tick
        while True:
            await clock.sleep(max(0.0, due - clock.now()))
            late = clock.now() - due
            if late > heartbeat and self.leadership.leads:
                self._context.metrics.heartbeat_late(late)
            self._tick_due = True
            self.wake()
            # After a pause the ticks that were missed are not made up for: the messages that came
            # meanwhile are still to be read, and an election for their lack would be a mistake.
            due = max(due + tick, clock.now() + tick / 2)

    def _on_tick(self) -> None:
        self._ticks += 1
        leaderless = self.leadership.leaderless_for()
        patience = self._context.config.election_seconds
        self.pipeline.tick()
        self.reads.tick(leaderless > 0)
        if leaderless >= patience:
            before = self._context.clock.now() - patience
            self.pipeline.queue.expire(before)
            self.reads.expire(before)
        if self.health.check():
            if self.health.sick:
                logger.warning("the log's disk has not answered for two election timeouts")
            else:
                logger.info("the log's disk answers again")
            self._update_eligibility()
        if self._ticks % self._context.config.raft.election_ticks == 0:
            self._each_election_timeout()
        self._context.metrics.waiting(self.pipeline.queue.commands, self.pipeline.queue.size)

    def _each_election_timeout(self) -> None:
        self.availability.log()
        if not self.leadership.leads:
            return
        if self.health.sick:
            self.hand_over()
        status = self._core.status()
        for follower in status.followers:
            lag = status.last_index - follower.match_index
            self._context.metrics.follower_lag(follower.node_id, lag)

    def _receive(self, message: PeerMessage) -> None:
        if self._group is not None:
            self.contacts.message(message.source)
            self.leader_clock.received(message)
            self._inbox.append(message)
            self.wake()

    def _unreachable(self, node_id: int, loss: Loss) -> None:
        if self._group is not None:
            self.contacts.lost(node_id, loss)
            self._core.report_unreachable(node_id)
            self.pipeline.unreachable(node_id)
            self.wake()

    def _step_now(self, message: Message) -> None:
        if self._group is None:
            raise NodeStopped("this node has stopped")
        self._core.step(message)
        self._drain()
        self.wake()

    async def _receive_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        try:
            await self._receiver.receive(offer, chunks)
        except CorruptStorage:
            raise  # the snapshot is bad, not our disk
        except StorageError as error:
            self.fail(error)
            raise

    # The disk

    def _persisted(self, readies: Sequence[Ready]) -> None:
        # Only now: an acknowledgement that left before the write had returned could be of an entry that a
        # power failure takes back, after the leader has counted it.
        self._core.persisted(readies[-1].number)
        send = self._context.transport.send
        for ready in readies:
            for message in ready.messages_after_persist:
                send(self.leader_clock.sent(message))
        self._context.transport.flush()

    def _written(self) -> None:
        """The disk may take the next batch, and the core may have something to say: not a turn later."""
        if self._core.apply_index > self._context.history.applied.index:
            self.applier.wake()
        if self._listening:
            self._turn()

    async def _install(self, meta: SnapshotMeta) -> None:
        await self._receiver.install(meta)

    async def _load(self, wanted: LogRead) -> None:
        entries: Sequence[Entry] = ()
        if wanted.start >= self._core.first_index:
            read = partial(self._context.log.entries, wanted.start, wanted.end, wanted.max_bytes)
            entries = await self._context.log_worker.run(read)
        self._core.entries_loaded(wanted.target, entries)
        self.wake()

    # Applying

    def _applied(
        self, entries: Sequence[Entry], results: Sequence[Sequence[R]], membership_changed: bool
    ) -> None:
        self.compactor.applied(sum(len(entry.data) for entry in entries))
        self.pipeline.applied(entries, results)
        self._index_waiters.applied(entries[-1].id.index)
        if membership_changed:
            self._membership_applied()
        self._notify()
        if self.leadership.leads:
            self._commit_notifier.committed(entries[-1].id.index)
        if self.pipeline.queue or membership_changed:
            # Callers who have their results go first: what the core says next is for others.
            asyncio.get_running_loop().call_soon(self.wake)

    def _jumped(self, meta: SnapshotMeta) -> None:
        self._context.history.jump(meta)
        self.pipeline.jumped(meta)
        self._index_waiters.applied(meta.last.index)
        self._membership_applied()

    def _membership_applied(self) -> None:
        membership = self._context.history.membership
        log_changes(self._membership, membership)
        self._membership = membership
        self.peers.follow_membership()
        self.pipeline.membership_changed(membership.node_ids)
        self.membership_changed.fire()
        if self._context.identity.node_id in membership.removed:
            self._spawn(self._leave(MemberRemoved("this member was removed from its cluster")))

    def _refused(self, error: ConnectKvError) -> None:
        """The others do not want this node."""
        if isinstance(error, MemberRemoved):
            self._spawn(self._leave(error))
        else:
            self.fail(error)

    async def _leave(self, error: MemberRemoved) -> None:
        """Stay for a moment: the others hear from the one who led that this is committed, and who asked
        this node for its removal is answered.
        """
        config = self._context.config
        await self._context.clock.sleep(2 * config.raft.heartbeat_ticks * config.tick_seconds)
        self.fail(MemberRemoved(f"{error}; its data directory can be deleted"))

    # Leadership

    def hand_over(self) -> int | None:
        """Ask the most advanced follower to lead; returns which, or None if there is none."""
        successor = self.leadership.successor() if self.leadership.leads else None
        if successor is not None:
            self._core.transfer_leadership(successor)
            self.wake()
        return successor

    def _follow_leader(self) -> None:
        if not self.leadership.changed():
            return
        self.pipeline.leader_changed()
        self.wake()
        if not self.leadership.leads:
            self._spawn(self._sender.cancel())
        leader = self._core.leader_id
        who = "none" if leader is None else f"{leader:x}"
        if self.leadership.leads:
            logger.info("this member leads", extra={"term": self._core.term})
        else:
            logger.info("the leader changed", extra={"term": self._core.term, "leader": who})
        self._context.metrics.leader_changed(self._core.leader_id)
        self.leader_changed.fire()

    def _update_eligibility(self) -> None:
        confirmed = self._context.log.confirmed
        self._core.set_eligible(vote=confirmed, campaign=confirmed and not self.health.sick)
        if self.health.sick:
            self.hand_over()
        elif confirmed and self._core.membership.voters == {self._context.identity.node_id}:
            # There is nobody to wait for.
            self._core.campaign()
        self.wake()

    # Tasks

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        """Run it beside the activities; None if they are ending."""
        if self._group is not None:
            try:
                return self._group.create_task(work)
            except RuntimeError:
                logger.debug("the node is ending")
        work.close()
        return None

    async def _until_failure(self) -> None:
        raise await self._failure

    def _notify(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if watcher.future.done():
                continue  # whoever waited has gone
            if watcher.condition():
                watcher.future.set_result(None)
            else:
                self._watchers.append(watcher)
