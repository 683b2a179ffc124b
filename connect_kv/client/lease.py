"""Leases that keep themselves alive: one stream renews all leases of a client."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from connect_kv import errors
from connect_kv.client import trouble
from connect_kv.client.endpoints import Endpoints
from connect_kv.client.failures import CallFailed
from connect_kv.client.tasks import ended, first_to_end
from connect_kv.rpc.lease_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse

if TYPE_CHECKING:
    from connect_kv.client import stubs

__all__ = ["Lease"]

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT = 2.0
"""Seconds, and at most a third of the time to live."""

Stream: TypeAlias = "stubs.StreamCall[LeaseKeepAliveRequest, LeaseKeepAliveResponse]"


class Lease:
    """A lease held by this client, renewed until it is revoked or the client closes.

    As a context manager it is revoked at the end, and its keys with it.
    """

    def __init__(
        self, id: int, ttl: int, granted_at: float, revoke: Callable[[int], Awaitable[object]]
    ) -> None:
        self.id = id
        self.ttl = ttl
        """Seconds it lives after a renewal."""
        self.valid_until = granted_at + ttl
        """On the event loop's clock, counted from before the last answered renewal was sent."""
        self.renew_at = granted_at + ttl / 3
        self._revoke = revoke
        self._lost = asyncio.Event()
        self._ended = False

    @property
    def alive(self) -> bool:
        """Whether the cluster has certainly not let it expire."""
        return not self._lost.is_set() and asyncio.get_running_loop().time() < self.valid_until

    async def wait_lost(self) -> None:
        """Wait until the lease has expired, or may have: whoever relies on it must stop doing so."""
        await self._lost.wait()

    async def revoke(self) -> None:
        """End it now and delete its keys. Safe to repeat."""
        if self._ended:
            return
        self._ended = True
        self._lost.set()
        with suppress(errors.Refused):  # it had expired before
            await self._revoke(self.id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.revoke()

    def renewed(self, sent_at: float, ttl: int) -> None:
        """The cluster answered a renewal sent at that time; a `ttl` of 0 says that it is gone."""
        if ttl <= 0:
            self.lost()
            return
        self.ttl = ttl
        self.valid_until = sent_at + ttl
        self.renew_at = sent_at + ttl / 3

    def lost(self) -> None:
        """The lease is over: whoever waits for its end hears of it."""
        self._ended = True
        self._lost.set()

    @property
    def ended(self) -> bool:
        """Whether it needs no more renewal."""
        return self._ended


class PendingLease:
    """``client.lease(ttl)``: await it for a Lease, or use it as a context manager."""

    def __init__(self, grant: Callable[[], Awaitable[Lease]]) -> None:
        self._grant = grant
        self._lease: Lease | None = None

    def __await__(self) -> Generator[object, None, Lease]:
        return self._grant().__await__()

    async def __aenter__(self) -> Lease:
        self._lease = await self._grant()
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            await self._lease.revoke()


class LeaseKeeper:
    """Renews all leases of a client at a third of their time to live, on one stream."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._leases: dict[int, Lease] = {}
        self._unanswered: dict[int, float] = {}
        """Renewals on the present stream: lease id to when it was sent."""
        self._wake = asyncio.Event()
        self._wake_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def keep(self, lease: Lease) -> None:
        """Renew it from now on."""
        self._leases[lease.id] = lease
        if lease.renew_at < self._wake_at:
            self._wake.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="connect-kv leases")

    async def close(self) -> None:
        """Stop renewing; leases not revoked expire by themselves."""
        if self._task is not None:
            await ended(self._task)

    async def _run(self) -> None:
        """One stream after another, whenever there is a lease to renew."""
        loop = asyncio.get_running_loop()
        while True:
            await self._until_due()
            endpoint, wait = self._endpoints.pick(loop.time())
            if wait > 0:
                await asyncio.sleep(wait)
            stream: Stream | None = None
            try:
                stream = await endpoint.stubs.lease_keep_alive()
                await first_to_end(self._send(stream), self._receive(stream))
            except (CallFailed, TimeoutError) as error:
                logger.debug(
                    "leases: leaving a member", extra={"member": endpoint.address, "reason": str(error)}
                )
                why = trouble.of(error) if isinstance(error, CallFailed) else trouble.SILENT
                self._endpoints.failed(endpoint, loop.time(), why)
            finally:
                if stream is not None:
                    stream.cancel()
                self._unanswered.clear()

    async def _send(self, stream: Stream) -> None:
        while True:
            now = asyncio.get_running_loop().time()
            for lease in await self._until_due():
                self._unanswered[lease.id] = now
                await stream.write(LeaseKeepAliveRequest(ID=lease.id))

    async def _receive(self, stream: Stream) -> None:
        while True:
            answer = await stream.read()
            sent_at = self._unanswered.pop(answer.ID, None)
            lease = self._leases.get(answer.ID)
            if lease is not None and sent_at is not None:
                lease.renewed(sent_at, answer.TTL)

    async def _until_due(self) -> list[Lease]:
        """Wait until leases are to be renewed. Raises TimeoutError when renewals are not answered.

        With one lease go all that are due soon, so that ten thousand wake us a few times per TTL.
        """
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._forget_the_dead(now)
            for id, sent_at in self._unanswered.items():
                if sent_at + _patience(self._leases[id]) <= now:
                    raise TimeoutError("renewals are not answered")
            unasked = [lease for lease in self._leases.values() if lease.id not in self._unanswered]
            if any(lease.renew_at <= now for lease in unasked):
                return [lease for lease in unasked if lease.renew_at - lease.ttl / 12 <= now]
            times = [lease.renew_at for lease in unasked]
            times += [sent_at + _patience(self._leases[id]) for id, sent_at in self._unanswered.items()]
            times += [self._leases[id].valid_until for id in self._unanswered]
            self._wake_at = min(times, default=math.inf)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if self._wake_at == math.inf else self._wake_at):
                    await self._wake.wait()

    def _forget_the_dead(self, now: float) -> None:
        for lease in [lease for lease in self._leases.values() if lease.ended or lease.valid_until <= now]:
            if not lease.ended:
                lease.lost()
            del self._leases[lease.id]
            self._unanswered.pop(lease.id, None)


def _patience(lease: Lease) -> float:
    """Seconds a member may take to answer a renewal before another is asked."""
    return min(ANSWER_TIMEOUT, lease.ttl / 3)


async def renew_once(member: stubs.Stubs, id: int) -> int:
    """Renew one lease on a stream of its own; its TTL, 0 if there is none."""
    stream = await member.lease_keep_alive()
    try:
        await stream.write(LeaseKeepAliveRequest(ID=id))
        return (await stream.read()).TTL
    finally:
        stream.cancel()
