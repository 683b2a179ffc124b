"""RaftNode: what the services of one member are given. Everything else of this package lies below."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from connect_kv.errors import ConnectKvError, MemberRemoved, NodeStopped, NotLeader, Unavailable
from connect_kv.events import Signal
from connect_kv.interfaces import Clock, Identity, LogStore, ReplicatedState, Transport, Worker
from connect_kv.node.config import NodeConfig
from connect_kv.node.context import Answer, NodeContext, NodeMetrics, NoMetrics, answer_nothing
from connect_kv.node.driver import Driver
from connect_kv.node.entry_spans import EntrySpans
from connect_kv.node.history import AppliedHistory
from connect_kv.node.membership import added_id
from connect_kv.node.status import Contact, NodeStatus, Outage
from connect_kv.peer_protocol import Description
from connect_kv.raft.core import RaftCore
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.status import RaftStatus
from connect_kv.raft.types import Membership, Restored

R = TypeVar("R")

logger = logging.getLogger(__name__)


class RaftNode(Generic[R]):
    """One member of a cluster, over a core made from `restored`.

    It owns `log`, `log_worker`, `state` and `transport` from `start` on, and closes them in `stop`.
    """

    def __init__(
        self,
        *,
        config: NodeConfig,
        core: RaftCore,
        restored: Restored,
        log: LogStore,
        log_worker: Worker,
        state: ReplicatedState[R],
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        metrics: NodeMetrics | None = None,
        free_bytes: Callable[[], tuple[int, int]] | None = None,
        space_low: Callable[[bool, int], None] = lambda low, free: None,
        answer: Answer = answer_nothing,
        spans: EntrySpans | None = None,
    ) -> None:
        """`answer` carries out what other members `ask` of this one; `spans` tells of traced entries.

        `free_bytes` gives (free, total) bytes of the disk; ``space_low(low, free)`` is told every few
        seconds whether free space is below the low-water mark.

        `log.identity` must be set (`node.startup`). Make it on the running loop.
        """
        if log.identity is None:
            raise ValueError("log: its directory has no identity yet; bootstrap or join first")
        self._context: NodeContext[R] = NodeContext(
            config=config,
            identity=log.identity,
            core=core,
            log=log,
            log_worker=log_worker,
            state=state,
            transport=transport,
            clock=clock,
            rng=rng,
            metrics=metrics or NoMetrics(),
            history=AppliedHistory(restored, state.last_applied),
            answer=answer,
            spans=spans,
        )
        self._driver: Driver[R] = Driver(self._context, free_bytes=free_bytes, space_low=space_low)
        self._main: asyncio.Task[None] | None = None
        self._stopping: str | None = None
        self._closed = False
        self.failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """Resolves with the error that ended this node; stays open if it is stopped in order."""

    # Running

    async def start(self, description: Description | None = None) -> None:
        """Listen, and take part. `description` is what `node.startup.join` returned, if it was used.

        Raises what the transport raises when it cannot listen; call `stop` then as well.
        """
        self._main = asyncio.create_task(self._run())
        await self._driver.running.wait()
        await self._context.transport.start(self._driver.peers, self._driver.peers.introduce)
        if description is not None:
            self._driver.peers.hear(description)
        self._driver.begin()

    async def stop(self) -> None:
        """Hand leadership over, let queued writes finish, close everything in order. Safe to repeat.

        Takes no new proposals or reads meanwhile. Each step is bounded: a disk that never answers cannot keep
        the process from ending.
        """
        if self._closed:
            return
        self._closed = True
        self._stopping = self._stopping or "this node is shutting down"
        patience = self._context.config.election_seconds
        if self._main is not None and not self.failed.done():
            # It may fail, or learn that it was removed, meanwhile: then there is nothing left to finish.
            with suppress(NodeStopped):
                await self._come_to_rest(patience)
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        await _bounded(self._context.transport.close(), patience)
        await self._close_storage(patience)

    async def _come_to_rest(self, patience: float) -> None:
        await _bounded(self._resign(), patience)
        await _bounded(self._driver.until(lambda: self._driver.pipeline.idle), patience)
        await _bounded(self._driver.writer.rest(), patience)
        # Nothing may be cut short inside the state: it is closed next.
        await _bounded(self._driver.compactor.quiet.acquire(), patience)
        await _bounded(self._driver.applier.quiet.acquire(), patience)

    async def abort(self) -> None:
        """End at once, as a killed process does: nothing is handed over, finished or closed."""
        self._closed = True
        self._stopping = "this node was killed"
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])

    # For the services of this node

    def submit(self, payload: bytes, count: int = 1) -> asyncio.Future[Sequence[R]]:
        """Replicate `count` commands; the future resolves with their results, once applied here.

        `payload` is an encoded CommandBatch without its times. Works on any member. Raises

        - NoLeader, Overloaded, RequestTooLarge, NotProposed, NodeStopped: it certainly has no effect;
        - OutcomeUnknown: it may have taken effect, or may still.

        Some of them at once, before there is a future. Whoever ends the future (cancels it, or sets an
        exception) gives the proposal up: that leaves its outcome unknown, too.
        """
        self._check_running()
        return self._driver.submit(payload, count)

    async def propose(self, payload: bytes, count: int = 1) -> Sequence[R]:
        """Replicate `count` commands and return their results, as `submit` gives them."""
        return await self.submit(payload, count)

    def submit_read(self) -> asyncio.Future[int]:
        """The future resolves when every write acknowledged before this call is visible on this node.

        ReadIndex, thesis 6.4: costs one heartbeat round, shared by all reads waiting.
        It gives the index the read may rely on, already applied here.
        Raises NoLeader after one election timeout without a leader (retry elsewhere), NodeStopped.
        """
        self._check_running()
        return self._driver.submit_read()

    async def read_barrier(self) -> int:
        """Wait until every write acknowledged before this call is visible on this node, as `submit_read`."""
        return await self.submit_read()

    @property
    def read_date(self) -> int:
        """The leader's time of the last read barrier answered here, or later: nanoseconds since 1970.

        After a barrier, not before the time at which it was asked for. Never goes back.
        """
        return self._driver.leader_clock.read

    async def change_membership(self, change: MembershipChange) -> Membership:
        """Replicate a change of members; returns the membership once it is committed and, if it was
        joint, left again.

        Members to add whose `node_id` is 0 get one. Only on the leader: raises NotLeader,
        MembershipRefused, and as `propose` does NotProposed and OutcomeUnknown.
        """
        self._check_running()
        core, cluster_id = self._context.core, self._context.identity.cluster_id
        index = core.last_index + 1
        named = change.with_ids(lambda position: added_id(cluster_id, index, position))
        entry = core.propose_membership(named)
        future: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._driver.pipeline.waiters.add(entry, 0, 0, future)
        self._driver.wake()
        await future
        history = self._context.history
        await self._driver.until(lambda: not history.membership.joint)
        return history.membership

    async def transfer_leadership(self, to: int) -> None:
        """Hand leadership to that voter; returns once this node follows it.

        Raises NotLeader if this node does not lead, Unavailable if the other did not take over within one
        election timeout: then this node still leads.
        """
        self._check_running()
        core = self._context.core
        if not self._driver.leadership.leads:
            raise NotLeader(core.leader_id)
        if to == self._context.identity.node_id:
            return
        core.transfer_leadership(to)
        self._driver.wake()
        try:
            async with asyncio.timeout(2 * self._context.config.election_seconds):
                await self._driver.until(lambda: core.leader_id == to)
        except TimeoutError:
            raise Unavailable(f"member {to:x} did not take over leadership") from None

    async def ask(self, target: int, method: str, request: bytes) -> bytes:
        """Have another member carry out a call of a service; its answer. The caller bounds the time.

        Raises ConnectionRefusedError if it certainly was not begun, another OSError if that is unknown.
        """
        self._check_running()
        return await self._context.transport.ask(target, method, request)

    # What is known here

    @property
    def identity(self) -> Identity:
        """Whose directory this is."""
        return self._context.identity

    @property
    def is_leader(self) -> bool:
        """Whether this node believes it leads."""
        return self._driver.leadership.leads

    @property
    def leader_id(self) -> int | None:
        """Who leads, as far as this node knows."""
        return self._context.core.leader_id

    @property
    def leader_changed(self) -> Signal:
        """Another leader is known, or none any more."""
        return self._driver.leader_changed

    @property
    def membership_changed(self) -> Signal:
        """Another membership has been applied here."""
        return self._driver.membership_changed

    @property
    def term(self) -> int:
        """The current term."""
        return self._context.core.term

    @property
    def membership(self) -> Membership:
        """The last membership applied here."""
        return self._context.history.membership

    @property
    def last_applied(self) -> int:
        """The last index applied here."""
        return self._context.history.applied.index

    @property
    def slow_reads(self) -> int:
        """Read barriers that were not answered in time, and asked for again."""
        return self._driver.reads.slow

    @property
    def failed_reads(self) -> int:
        """Read barriers that ended without a leader."""
        return self._driver.reads.failed

    def active_since(self, moment: float) -> frozenset[int]:
        """Members of which a message came after that time of the node's clock, this one included."""
        return self._driver.contacts.messages_since(moment) | {self._context.identity.node_id}

    @property
    def common_highest_command(self) -> int:
        """The largest command number every member can apply; 0 while one has not been heard."""
        return self._driver.peers.common_highest_command

    @property
    def machines(self) -> Mapping[int, bytes]:
        """What each member that was heard said last of the machines it hosts (HostedMachines)."""
        return self._driver.peers.machines

    def status(self) -> NodeStatus:
        """As of now; `outage` and `contacts` say how it stands with the others."""
        return NodeStatus(
            raft=self.raft_status(),
            durable_index=self._context.log.durable_index,
            confirmed=self._context.log.confirmed,
            disk_sick=self._driver.health.sick,
        )

    def outage(self) -> Outage | None:
        """Why nothing can be committed, as far as this member knows; None if it knows of no reason."""
        return self._driver.availability.outage()

    def contacts(self) -> Mapping[int, Contact]:
        """How this member reaches each other one; what a leader says of it is recent."""
        return self._driver.availability.contact_with_all()

    def silence(self, node_id: int) -> float | None:
        """Seconds since a message of that member came; None if none has, in this life of the process."""
        return self._driver.contacts.silence(node_id)

    def raft_status(self) -> RaftStatus:
        """The part of it that is Raft's own."""
        return self._context.core.status()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at whenever anything here changes.

        For what follows the node's state, such as leadership. Raises NodeStopped.
        """
        self._check_running()
        await self._driver.until(condition)

    # Ending

    def _check_running(self) -> None:
        if self._main is None:
            raise NodeStopped("this node has not started")
        if self._stopping is not None:
            raise NodeStopped(self._stopping)

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._driver.run()
        except BaseExceptionGroup as group:
            error = _first(group)
            self._stopping = f"this node has failed: {error}"
        finally:
            self._driver.end(self._stopping or "this node is shutting down")
        if error is not None:
            self._report(error)
            # Now, not in `stop`: to the others this node must not seem alive.
            await self._context.transport.close()
            self.failed.set_result(error)

    def _report(self, error: BaseException) -> None:
        if isinstance(error, MemberRemoved):
            logger.warning("%s", error)
        elif isinstance(error, ConnectKvError):
            logger.error("this node stops: %s", error)
        else:
            logger.error("this node stops", exc_info=error)

    async def _resign(self) -> None:
        """Let another lead before this one goes: writes then resume at once."""
        while self._driver.hand_over() is not None:
            try:
                async with asyncio.timeout(self._context.config.election_seconds):
                    await self._driver.until(lambda: not self._driver.leadership.leads)
            except TimeoutError:
                continue

    async def _close_storage(self, patience: float) -> None:
        worker = self._context.log_worker
        # The log's worker closes the log: under a write that never ends, it must stay open.
        for name, close in (
            ("state", self._context.state.close),
            ("log", lambda: worker.run(self._context.log.close)),
            ("log worker", worker.close),
        ):
            try:
                if not await _bounded(close(), patience):
                    logger.error("the %s did not close in time", name)
            except ConnectKvError as error:
                logger.error("the %s did not close: %s", name, error)


async def _bounded(work: Awaitable[object], seconds: float) -> bool:
    """Wait for it, but no longer than that; whether it ended."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
