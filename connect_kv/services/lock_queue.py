"""Who of several has a name: the queue under locks and elections, as ordinary keys.

A contender's key is ``<name>/<lease in hexadecimal>`` (``-5`` for a negative one, as other clients of etcd
write it), attached to its lease; the first is the one with the smallest create revision, which is also its
fencing number. Each waits for the one just before it, so that an end wakes one waiter and not all. Who is
first is decided behind a read barrier in one frozen state that also holds the contender's own key: one
whose lease has expired while it waited is never first.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NamedTuple

from connect_kv.errors import ConnectKvError, NodeStopped
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.kv import validation
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.watch_stream import WatchStream
from connect_kv.rpc.kv_pb2 import (
    Compare,
    KeyValue,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest, LeaseRevokeRequest
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest
from connect_kv.services.access import Access, as_unknown
from connect_kv.services.caller import Caller
from connect_kv.services.executor import BY_SERVER, CommandExecutor, field_number

OWN_LEASE_SECONDS = 60
"""Of a lease granted for who brought none. Nobody renews it."""
SESSION_EXPIRED = Refusal(Code.UNKNOWN, "mutex: session is expired")

_TXN = field_number("txn")
_GRANT = field_number("lease_grant")
_REVOKE = field_number("lease_revoke")


class Contender(NamedTuple):
    """A contender's key."""

    prefix: bytes
    key: bytes
    revision: int
    """The create revision of the key, which is the place in the queue."""
    lease: int
    own_lease: bool
    """Whether the lease was granted here."""
    entered: int
    """Revision of the answer when it entered: before another value was put, if there was one."""
    first_at: int = 0
    """Revision of a state in which it was the first."""


class LockQueue:
    """Enters, waits and leaves for others. `close` ends what is still being cleaned up."""

    def __init__(self, executor: CommandExecutor, kv: KvMachine, access: Access) -> None:
        self._executor = executor
        self._access = access
        self._kv = kv
        self._running: set[asyncio.Task[Any]] = set()

    async def win(
        self,
        caller: Caller,
        name: bytes,
        lease: int,
        value: bytes | None,
        scope: AbstractAsyncContextManager[None],
    ) -> Contender:
        """Enter and wait, within `scope`, until this contender is the first.

        `value` is what its key shall hold; None: nothing, and what one that is there already holds, it keeps.

        If the caller goes away while it waits, the contender leaves; what it may hold by another call with
        the same lease it keeps. If `scope` is interrupted, because this member stops or has no leader, it
        keeps its place: the caller asks another member with the same lease.
        Raises Refused: the lease is unknown, or expired meanwhile.
        """
        with as_unknown():
            by = self._access.lock(caller, name + b"/", name + b"0")
        entering = asyncio.get_running_loop().create_task(self._enter(by, name, lease, value))
        self._own(entering)
        try:
            async with scope:
                place = await _result_of(entering)
                first_at = await self._wait(place)
        except asyncio.CancelledError:
            self._own(asyncio.get_running_loop().create_task(self._leave(entering)))
            raise
        return place._replace(first_at=first_at)

    async def first(self, name: bytes) -> tuple[KeyValue | None, int]:
        """Who is first in this member's state, and the revision of that state."""
        request = TxnRequest()
        oldest = request.success.add().request_range
        oldest.CopyFrom(_contenders(name + b"/"))
        oldest.sort_order = RangeRequest.ASCEND
        response = TxnResponse.FromString(await self._kv.read_txn(request))
        kvs = response.responses[0].response_range.kvs
        return (kvs[0] if kvs else None), response.header.revision

    async def close(self) -> None:
        """Wait for nobody any more. Whoever still waits to enter is told NodeStopped."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _enter(self, by: bytes, name: bytes, lease: int, value: bytes | None) -> Contender:
        own_lease = not lease
        if own_lease:
            grant = LeaseGrantRequest(TTL=OWN_LEASE_SECONDS)
            lease = (await self._executor.execute(_GRANT, grant.SerializeToString(), by)).lease_grant.ID
        prefix = name + b"/"
        key = prefix + b"%x" % lease
        request = TxnRequest(
            compare=[created(key, 0)],
            success=[RequestOp(request_put=PutRequest(key=key, value=value or b"", lease=lease))],
            failure=[RequestOp(request_range=RangeRequest(key=key))],
        )
        response = (await self._executor.execute(_TXN, request.SerializeToString(), by)).txn
        entered = response.header.revision
        if response.succeeded:
            return Contender(prefix, key, entered, lease, own_lease, entered)
        present = response.responses[0].response_range.kvs[0]
        place = Contender(prefix, key, present.create_revision, lease, own_lease, entered)
        if value is not None and present.value != value:
            replaced = await self._execute(_replacing(place.key, place.revision, lease, value), by)
            if not replaced.succeeded:
                raise SESSION_EXPIRED.error()
        return place

    async def replace(
        self, caller: Caller, key: bytes, revision: int, lease: int, value: bytes
    ) -> TxnResponse:
        """Give a contender's key another value, if it is still the one of that create revision."""
        return await self._asked(caller, _replacing(key, revision, lease, value))

    async def delete(self, caller: Caller, key: bytes, revision: int) -> TxnResponse:
        """Take a contender's key away, if it is still that one."""
        return await self._asked(caller, _deleting(key, revision))

    async def _asked(self, caller: Caller, request: TxnRequest) -> TxnResponse:
        """A transaction on a key that a client named."""
        with as_unknown():
            by = self._access.txn(caller, request)
        return await self._execute(request, by)

    async def _execute(self, request: TxnRequest, by: bytes) -> TxnResponse:
        validation.check_txn(request)
        return (await self._executor.execute(_TXN, request.SerializeToString(), by)).txn

    async def _wait(self, place: Contender) -> int:
        """Until it is the first: the revision of a state in which it is."""
        while True:
            await self._executor.barrier()
            before, revision = await self._before(place)
            if before is None:
                return revision
            await self._deleted((before.key, place.key), revision)

    async def _before(self, place: Contender) -> tuple[KeyValue | None, int]:
        """The contender just before it, if any, and the revision of the state looked at."""
        request = TxnRequest()
        request.success.add().request_range.key = place.key
        before = request.success.add().request_range
        before.CopyFrom(_contenders(place.prefix))
        before.sort_order = RangeRequest.DESCEND
        before.max_create_revision = place.revision - 1
        response = TxnResponse.FromString(await self._kv.read_txn(request))
        own, others = (one.response_range.kvs for one in response.responses)
        if not own or own[0].create_revision != place.revision:
            raise SESSION_EXPIRED.error()
        return (others[0] if others else None), response.header.revision

    async def _deleted(self, keys: tuple[bytes, ...], revision: int) -> None:
        """Wait until one of these keys was deleted after that revision."""
        stream = WatchStream(self._kv.hub)
        try:
            for key in keys:
                create = WatchCreateRequest(key=key, start_revision=revision + 1)
                create.filters.append(WatchCreateRequest.NOPUT)
                stream.handle(WatchRequest(create_request=create))
            async for response in stream:
                if response.events or response.canceled:
                    return
        finally:
            stream.close()

    async def _leave(self, entering: asyncio.Task[Contender]) -> None:
        """Whoever waited has gone: let the next one have its turn.

        Nobody is taken out who may be the first: by another call with the same lease it may know so.
        """
        with suppress(ConnectKvError, TimeoutError):
            place = await entering
            if place.own_lease:  # nobody else has it
                revoke = LeaseRevokeRequest(ID=place.lease)
                await self._executor.execute(_REVOKE, revoke.SerializeToString(), BY_SERVER)
            elif (before := (await self._before(place))[0]) is not None:
                await self._execute(_deleting(place.key, place.revision, behind=before), BY_SERVER)

    def _own(self, task: asyncio.Task[Any]) -> None:
        """It runs on when its caller has gone; its failure is the caller's to hear, if there is one."""
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()


def _replacing(key: bytes, revision: int, lease: int, value: bytes) -> TxnRequest:
    return TxnRequest(
        compare=[created(key, revision)],
        success=[RequestOp(request_put=PutRequest(key=key, value=value, lease=lease))],
    )


def _deleting(key: bytes, revision: int, *, behind: KeyValue | None = None) -> TxnRequest:
    """As long as that other is there, if one is named."""
    request = TxnRequest(compare=[created(key, revision)])
    if behind is not None:
        request.compare.append(created(behind.key, behind.create_revision))
    request.success.add().request_delete_range.key = key
    return request


async def _result_of(entering: asyncio.Task[Contender]) -> Contender:
    """What it gives; it goes on when the caller leaves. That it was ended is not that the caller was."""
    await asyncio.wait({entering})
    if entering.cancelled():
        raise NodeStopped("this node is stopping")
    return entering.result()


def created(key: bytes, revision: int) -> Compare:
    """That the key has that create revision; 0: that there is none."""
    return Compare(key=key, target=Compare.CREATE, result=Compare.EQUAL, create_revision=revision)


def _contenders(prefix: bytes) -> RangeRequest:
    """The one at the end of all of them that the caller sorts for."""
    return RangeRequest(key=prefix, range_end=prefix[:-1] + b"0", sort_target=RangeRequest.CREATE, limit=1)
