"""Locks and elections as context managers: a lease that is kept alive, and a place in a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from connect_kv import errors
from connect_kv.client import retry, trouble
from connect_kv.client.endpoints import Endpoints
from connect_kv.client.failures import CallFailed, Fate, fate, from_rpc
from connect_kv.client.lease import Lease, PendingLease
from connect_kv.client.ranges import Text, to_bytes
from connect_kv.client.watch import Watch
from connect_kv.rpc.election_pb2 import CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest
from connect_kv.rpc.kv_pb2 import Event, KeyValue, RangeResponse
from connect_kv.rpc.lock_pb2 import LockRequest

if TYPE_CHECKING:
    from connect_kv.client.stubs import Stubs

__all__ = ["Election", "Held", "Lock"]

T = TypeVar("T")

NEEDS_LEADER = (("hasleader", "true"),)
"""A member that cannot reach the others must not keep us waiting."""


class Held:
    """A place that was won: valid while its lease is alive. `async with` gives it back at the end."""

    def __init__(self, make_lease: Callable[[], PendingLease], endpoints: Endpoints, timeout: float) -> None:
        self._make_lease = make_lease
        self._endpoints = endpoints
        self._timeout = timeout
        self._lease: Lease | None = None
        self.key = b""
        """The key that stands for it; it is gone when it is no longer ours."""
        self.revision = 0
        """Larger for every later holder. Hand it to whatever is protected, and let that refuse smaller
        ones: a holder that was paused may not know yet that it has lost (a fencing token)."""

    @property
    def lease(self) -> Lease:
        """The lease with which the place in the queue, and what is held, ends."""
        if self._lease is None:
            raise errors.NotHeld("use it as a context manager")
        return self._lease

    @property
    def held(self) -> bool:
        """Whether it certainly is still ours."""
        return self._lease is not None and bool(self.key) and self._lease.alive

    async def wait_lost(self) -> None:
        """Wait until it is, or may be, somebody else's: stop what relies on it then."""
        await self.lease.wait_lost()

    async def __aenter__(self) -> Self:
        """Wait for it, as long as it takes. Cancelled, it gives its place up."""
        self._lease = await self._make_lease()
        try:
            await self._while_alive(self._win())
        except BaseException:
            await self._give_up()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._give_up()

    async def _win(self) -> None:
        raise NotImplementedError

    async def _give_up(self) -> None:
        """The key goes with its lease. If that cannot be said now, it expires."""
        lease, self._lease = self._lease, None
        self.key, self.revision = b"", 0
        if lease is not None:
            with suppress(errors.OutcomeUnknown, errors.Unavailable):
                await lease.revoke()

    async def _while_alive(self, work: Awaitable[None]) -> None:
        """Do it as long as the lease lives. Raises Unavailable if it ends before."""
        task = asyncio.ensure_future(work)
        lost = asyncio.ensure_future(self.lease.wait_lost())
        try:
            await asyncio.wait((task, lost), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise errors.Unavailable("the lease expired while it waited")
            task.result()
        finally:
            for one in (task, lost):
                one.cancel()
            await asyncio.gather(task, lost, return_exceptions=True)

    async def _patiently(self, make: Callable[[Stubs], Awaitable[T]]) -> T:
        """Wait at one member after another: with the same lease the place in the queue stays the same."""
        loop = asyncio.get_running_loop()
        while True:
            endpoint, wait = self._endpoints.pick(loop.time())
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                return await make(endpoint.stubs)
            except CallFailed as error:
                if fate(error.code, error.text) is Fate.REFUSED:
                    raise from_rpc(error, writes=False) from error
                self._endpoints.failed(endpoint, loop.time(), trouble.of(error))


class Lock(Held):
    """One holder at a time under a name, in the order of asking."""

    def __init__(
        self,
        name: bytes,
        note: bytes,
        make_lease: Callable[[], PendingLease],
        endpoints: Endpoints,
        timeout: float,
        *,
        contenders: Callable[[], Awaitable[RangeResponse]],
    ) -> None:
        """`contenders` reads the keys of all, in the order of asking."""
        super().__init__(make_lease, endpoints, timeout)
        self.name = name
        self._note = note
        self._contenders = contenders

    async def queue(self) -> list[KeyValue]:
        """Who holds it, and then who waits, in order; `value` is the note each gave. Needs no place in it."""
        return list((await self._contenders()).kvs)

    async def _win(self) -> None:
        request = LockRequest(name=self.name, lease=self.lease.id, note=self._note)
        answer = await self._patiently(lambda stubs: stubs.lock(request, metadata=NEEDS_LEADER))
        contenders = LeaderRequest(name=self.name)
        first = await retry.call(
            self._endpoints,
            lambda stubs, seconds: stubs.leader(contenders, timeout=seconds),
            timeout=self._timeout,
            writes=False,
        )
        if first.kv.key != answer.key:
            raise errors.Unavailable("the lease expired while it waited")
        self.key, self.revision = answer.key, first.kv.create_revision


class Election(Held):
    """One leader at a time under a name: `async with` waits until this candidate leads, and resigns."""

    def __init__(
        self,
        name: bytes,
        value: bytes,
        make_lease: Callable[[], PendingLease],
        endpoints: Endpoints,
        timeout: float,
        *,
        candidates: Callable[[], Awaitable[RangeResponse]],
        watch: Callable[[int], Watch],
    ) -> None:
        """`candidates` reads their keys, ``watch(revision)`` follows them from there on."""
        super().__init__(make_lease, endpoints, timeout)
        self.name = name
        self._value = value
        self._candidates = candidates
        self._watch = watch

    async def _win(self) -> None:
        request = CampaignRequest(name=self.name, lease=self.lease.id, value=self._value)
        answer = await self._patiently(lambda stubs: stubs.campaign(request, metadata=NEEDS_LEADER))
        self.key, self.revision = answer.leader.key, answer.leader.rev

    async def proclaim(self, value: Text) -> None:
        """Say something else to those who observe. Raises Refused if this candidate does not lead."""
        leader = LeaderKey(name=self.name, key=self.key, rev=self.revision, lease=self.lease.id)
        request = ProclaimRequest(leader=leader, value=to_bytes(value))
        await retry.call(
            self._endpoints,
            lambda stubs, seconds: stubs.proclaim(request, timeout=seconds),
            timeout=self._timeout,
            writes=False,  # to say the same again does no harm
        )

    async def leader(self) -> KeyValue | None:
        """Who leads now, if somebody does; `value` is what that one says."""
        request = LeaderRequest(name=self.name)
        try:
            answer = await retry.call(
                self._endpoints,
                lambda stubs, seconds: stubs.leader(request, timeout=seconds),
                timeout=self._timeout,
                writes=False,
            )
        except errors.Refused as refused:
            if refused.message != "election: no leader":
                raise
            return None
        return answer.kv

    async def observe(self) -> AsyncGenerator[KeyValue, None]:
        """Who leads now, then each later leader and everything it says, in order, for ever.

        None is left out, whichever member fails, unless the history was compacted meanwhile.
        """
        shown: KeyValue | None = None
        while True:
            found = await self._candidates()
            candidates = {kv.key: kv for kv in found.kvs}
            try:
                async with self._watch(found.header.revision + 1) as changes:
                    while True:
                        leader = min(candidates.values(), key=lambda kv: kv.create_revision, default=None)
                        if leader is not None and leader != shown:
                            shown = leader
                            yield leader
                        event = await anext(changes)
                        if event.type == Event.DELETE:
                            candidates.pop(event.kv.key, None)
                        else:
                            candidates[event.kv.key] = event.kv
            except errors.Compacted:
                continue
