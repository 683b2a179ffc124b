"""Locks and elections that somebody holds or waits for, found by the leases of their keys."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.errors import Refused
from connect_kv.kv.lessor import Lessor
from connect_kv.kv.machine import KvMachine
from connect_kv.rpc.dashboard_pb2 import LeasesResponse, QueuesResponse
from connect_kv.rpc.kv_pb2 import RangeRequest

MOST_LEASES = 5000
"""Leases whose keys are looked at for one answer."""
MOST_QUEUES = 500
MOST_CONTENDERS = 100
"""Of one queue that are told by name."""
MOST_KEYS = 10
"""Of one lease that are told."""
_VALUE = 256


class LeaseViews:
    """Reads this member's state, behind a barrier that the caller has waited for.

    `may_read` judges a range of keys: what it refuses is left out.
    """

    def __init__(self, kv: KvMachine, lessor: Lessor) -> None:
        self._kv = kv
        self._lessor = lessor

    async def held(self, may_read: Callable[[bytes, bytes], bool]) -> QueuesResponse:
        """All that are not empty, by name. A contender's key is ``NAME/LEASE`` (`services.lock_queue`)."""
        leases = self._kv.leases.by_expiry()
        names: set[bytes] = set()
        for lease in leases[:MOST_LEASES]:
            ending = f"/{lease:x}".encode()
            names.update(
                key.removesuffix(ending)
                for key in await self._kv.lease_keys(lease)
                if key.endswith(ending) and key != ending
            )
        response = QueuesResponse(more=len(leases) > MOST_LEASES or len(names) > MOST_QUEUES)
        for name in sorted(names)[:MOST_QUEUES]:
            if may_read(name + b"/", name + b"0"):
                await self._add(response, name)
        return response

    async def leases(self, skip: int, limit: int, may_read_all: Callable[[int], bool]) -> LeasesResponse:
        """Some of them, those that end first in front. `may_read_all`: judges a lease by its keys."""
        ids = self._kv.leases.by_expiry()
        response = LeasesResponse(count=len(ids))
        for lease in ids[skip : skip + limit]:
            found = self._lessor.time_to_live(lease)
            if found.TTL < 0:
                continue
            keys = await self._kv.lease_keys(lease)
            response.leases.add(
                ID=lease,
                ttl=found.TTL,
                granted_ttl=found.grantedTTL,
                keys=keys[:MOST_KEYS] if may_read_all(lease) else (),
                count=len(keys),
            )
        return response

    async def _add(self, response: QueuesResponse, name: bytes) -> None:
        found = await self._kv.range(
            RangeRequest(
                key=name + b"/",
                range_end=name + b"0",
                limit=MOST_CONTENDERS,
                sort_order=RangeRequest.ASCEND,
                sort_target=RangeRequest.CREATE,
            )
        )
        if not found.kvs:
            return
        queue = response.queues.add(name=name, count=found.count)
        for kv in found.kvs:
            queue.contenders.add(
                key=kv.key,
                lease=kv.lease,
                create_revision=kv.create_revision,
                value=kv.value[:_VALUE],
                ttl=self._lessor.time_to_live(kv.lease).TTL if kv.lease else -1,
            )


def allowed(judge: Callable[[], None]) -> bool:
    """Whether it refuses nothing."""
    try:
        judge()
    except Refused:
        return False
    return True
