"""Snapshots for followers: a frozen state streamed out, and one staged and switched to (§7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from connect_kv.errors import ConnectKvError
from connect_kv.node.applier import Applier, Compactor
from connect_kv.node.context import NodeContext
from connect_kv.peer_protocol import Hello, SnapshotOffer
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.messages import InstallSnapshot
from connect_kv.raft.types import EntryId, SnapshotMeta

R = TypeVar("R")

logger = logging.getLogger(__name__)


_FIRST_PAUSE_SECONDS = 0.1


class SnapshotRefused(ConnectKvError):
    """This member does not take that snapshot; says why. The sender may offer another."""


@dataclass(slots=True)
class _Hold:
    """Log after `index` is kept for a follower; `until` ends it if the follower does not advance."""

    index: int
    until: float | None


@dataclass(slots=True)
class _Staged:
    """A snapshot that is whole and checked, in a state database of that name."""

    last: EntryId
    name: str
    done: asyncio.Future[None]
    accepted: bool = False


@dataclass(slots=True)
class _Receiving:
    """A snapshot that is being staged, sent by the leader of `term`."""

    term: int
    staging: asyncio.Future[str]
    superseded: bool = False


class SnapshotSender(Generic[R]):
    """Streams this leader's state to followers whose entries are compacted away; one stream to each."""

    def __init__(
        self,
        context: NodeContext[R],
        applier: Applier[R],
        *,
        hello: Callable[[int], Hello],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None] | None],
        wake: Callable[[], None],
    ) -> None:
        self._context = context
        self._applier = applier
        self._hello = hello
        self._spawn = spawn
        self._wake = wake
        self._hold_seconds = 10 * context.config.election_seconds
        self._failures: dict[int, int] = {}
        """By member: how often in a row it took none."""
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._holds: dict[int, _Hold] = {}

    def start(self, target: int) -> None:
        """Send one to `target`, unless that is under way; the core is told how it ended."""
        if target not in self._streams:
            stream = self._spawn(self._stream(target))
            if stream is not None:
                self._streams[target] = stream

    async def cancel(self) -> None:
        """End all streams: this node does not lead any more, or its state is about to be replaced."""
        streams = list(self._streams.values())
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        self._holds.clear()
        self._failures.clear()

    def held(self) -> int | None:
        """The log after this index is wanted by followers that are sent a snapshot, or have just got one."""
        if not self._holds:
            return None
        now = self._context.clock.now()
        matches = {
            follower.node_id: follower.match_index for follower in self._context.core.status().followers
        }
        for target, hold in list(self._holds.items()):
            match = matches.get(target)
            if match is None:
                del self._holds[target]
            elif hold.until is not None:
                if match > hold.index:
                    hold.index, hold.until = match, now + self._hold_seconds
                elif hold.until <= now:
                    del self._holds[target]
        return min((hold.index for hold in self._holds.values()), default=None)

    async def _stream(self, target: int) -> None:
        ok = False
        try:
            await self._pause(target)
            ok = await self._send(target)
        finally:
            self._failures[target] = 0 if ok else self._failures.get(target, 0) + 1
            self._streams.pop(target, None)
            hold = self._holds.get(target)
            if ok and hold is not None:
                hold.until = self._context.clock.now() + self._hold_seconds
            else:
                self._holds.pop(target, None)
            self._context.metrics.snapshot_sent(ok)
            self._context.core.report_snapshot(target, ok)
            self._wake()

    async def _pause(self, target: int) -> None:
        """Before another attempt after one that failed: it may be of gigabytes, and fail again."""
        failures = self._failures.get(target, 0)
        if failures:
            most = 2 * self._context.config.election_seconds
            await self._context.clock.sleep(min(most, _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)))

    async def _send(self, target: int) -> bool:
        async with self._applier.quiet:
            source = await self._context.state.snapshot()
            meta = self._context.history.meta
        try:
            self._holds[target] = _Hold(meta.last.index, None)
            offer = SnapshotOffer(
                hello=self._hello(target),
                term=self._context.core.term,
                meta=meta,
                snapshot_id=self._context.rng.getrandbits(62) + 1,
                approximate_bytes=source.approximate_bytes,
            )
            logger.info(
                "sending a snapshot",
                extra={"member": f"{target:x}", "index": meta.last.index, "term": meta.last.term},
            )
            await self._context.transport.send_snapshot(offer, source.chunks())
        except OSError as error:
            logger.warning("a snapshot did not arrive", extra={"member": f"{target:x}", "reason": str(error)})
            return False
        finally:
            source.close()
        return True


class SnapshotReceiver(Generic[R]):
    """Stages a snapshot beside the running state, and switches to it when the core says so."""

    def __init__(
        self,
        context: NodeContext[R],
        applier: Applier[R],
        compactor: Compactor[R],
        *,
        step: Callable[[InstallSnapshot], None],
        before_switch: Callable[[], Awaitable[None]],
        jumped: Callable[[SnapshotMeta], None],
    ) -> None:
        """`step` gives the core its message and acts on what it says at once; `jumped` is told when
        the state is that of the snapshot.
        """
        self._context = context
        self._applier = applier
        self._compactor = compactor
        self._step = step
        self._before_switch = before_switch
        self._jumped = jumped
        self._receiving: _Receiving | None = None
        self._staged: _Staged | None = None

    async def receive(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Return once it is this node's state. Raises SnapshotRefused, or what staging it raised."""
        self._check(offer)
        await self._supersede(offer.term)
        stage = self._context.state.stage(offer.meta, chunks)
        receiving = self._receiving = _Receiving(offer.term, asyncio.ensure_future(stage))
        try:
            name = await receiving.staging
            self._check(offer)
            staged = self._offer_to_core(offer, name)
        except asyncio.CancelledError:
            if receiving.superseded:
                raise SnapshotRefused("the leader of a later term sends one") from None
            raise
        finally:
            if self._receiving is receiving:
                self._receiving = None
        await asyncio.shield(staged.done)

    async def _supersede(self, term: int) -> None:
        """Give up one of an earlier term: its sender leads no more, and may be dead halfway through."""
        while (receiving := self._receiving) is not None and receiving.term < term:
            receiving.superseded = True
            receiving.staging.cancel()
            # Its file is closed when the other task has seen its end as well.
            await asyncio.wait({receiving.staging})
            await asyncio.sleep(0)
            if self._receiving is receiving:
                self._receiving = None
        if self._receiving is not None or self._staged is not None:
            raise SnapshotRefused("another snapshot is being received")

    def _check(self, offer: SnapshotOffer) -> None:
        if offer.term < self._context.core.term:
            raise SnapshotRefused(f"it is of term {offer.term}, and term {self._context.core.term} has begun")
        if offer.meta.last.index <= self._context.history.applied.index:
            raise SnapshotRefused(f"index {offer.meta.last.index} is applied here already")

    def _offer_to_core(self, offer: SnapshotOffer, name: str) -> _Staged:
        staged = _Staged(offer.meta.last, name, asyncio.get_running_loop().create_future())
        self._staged = staged
        self._step(
            InstallSnapshot(
                source=offer.hello.source, target=offer.hello.target, term=offer.term, meta=offer.meta
            )
        )
        if not staged.accepted:
            self._staged = None
            raise SnapshotRefused("the log here has no need of it any more")
        return staged

    def install_requested(self, meta: SnapshotMeta) -> None:
        """The core asks for it to be installed."""
        if self._staged is None or self._staged.last != meta.last:
            raise RaftInvariantError("snapshot", f"none is staged at {meta.last}")
        self._staged.accepted = True

    async def install(self, meta: SnapshotMeta) -> None:
        """Make it current on disk, then switch to it while everything else stands still."""
        staged = self._staged
        if staged is None or staged.last != meta.last:
            raise RaftInvariantError("snapshot", f"none is staged at {meta.last}")
        await self._before_switch()
        async with self._compactor.quiet, self._applier.quiet:
            await self._context.log_worker.run(partial(self._context.log.install, staged.name, meta))
            await self._context.state.switch(staged.name)
            self._jumped(meta)
        self._context.metrics.snapshot_installed()
        logger.info("installed a snapshot", extra={"index": meta.last.index, "term": meta.last.term})
        self._staged = None
        if not staged.done.done():
            staged.done.set_result(None)
