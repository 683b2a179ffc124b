"""connect_kv.v1.Lease and etcdserverpb.Lease."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from connect_kv.kv import validation
from connect_kv.rpc import lease_pb2
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.services.access import Access
from connect_kv.services.asked import Asked, Many
from connect_kv.services.caller import Caller, RequestStream
from connect_kv.services.executor import CommandExecutor, field_number
from connect_kv.services.quota import Quota
from connect_kv.services.reads import Reads
from connect_kv.services.renewals import Renewals
from connect_kv.services.turns import Turns
from connect_kv.services.writes import Writes

_GRANT = field_number("lease_grant")
_REVOKE = field_number("lease_revoke")
_PIPELINE = 256
"""Keep-alives of one stream that may await their answer at once."""

_Answer = tuple[int, ResponseHeader, asyncio.Task[int]]


class LeaseService:
    """Leases: granted, renewed and revoked through the log, read behind a read barrier."""

    def __init__(
        self,
        executor: CommandExecutor,
        reads: Reads,
        renewals: Renewals,
        quota: Quota,
        access: Access,
        turns: Turns | None = None,
    ) -> None:
        """In `turns` many are answered that came together."""
        self._executor = executor
        self._access = access
        self._quota = quota
        self._reads = reads
        self._renewals = renewals
        writes = Writes(executor, turns or Turns())
        self.many: Mapping[str, Many] = {
            "LeaseGrant": writes.method(_GRANT, self._prepare_grant),
            "LeaseRevoke": writes.method(_REVOKE, self._prepare_revoke),
        }

    async def LeaseGrant(self, request: lease_pb2.LeaseGrantRequest, caller: Caller) -> bytes:
        """Grant a lease; without an id one is chosen when it is applied. The answer is serialized already."""
        by = self._grant(request, caller)
        await self._quota.admit_lease()
        return await self._executor.respond(_GRANT, request.SerializeToString(), by)

    async def LeaseRevoke(self, request: lease_pb2.LeaseRevokeRequest, caller: Caller) -> bytes:
        """End a lease and delete its keys."""
        by = self._access.lease_write(caller, request.ID)
        return await self._executor.respond(_REVOKE, request.SerializeToString(), by)

    def _grant(self, request: lease_pb2.LeaseGrantRequest, caller: Caller) -> bytes:
        by = self._access.known(caller)
        validation.check_lease_grant(request)
        return by

    def _prepare_grant(self, one: Asked[lease_pb2.LeaseGrantRequest]) -> tuple[bytes, bytes] | None:
        request = one.request
        by = self._grant(request, one.caller)
        return (request.SerializeToString(), by) if self._quota.admits_lease() else None

    def _prepare_revoke(self, one: Asked[lease_pb2.LeaseRevokeRequest]) -> tuple[bytes, bytes]:
        request = one.request
        by = self._access.lease_write(one.caller, request.ID)
        return request.SerializeToString(), by

    async def LeaseTimeToLive(
        self, request: lease_pb2.LeaseTimeToLiveRequest, caller: Caller
    ) -> lease_pb2.LeaseTimeToLiveResponse:
        """What remains of a lease; TTL -1 if there is none."""
        await self._access.behind(self._executor.barrier, lambda: self._access.known(caller))
        if request.keys:
            self._access.leases(caller, (request.ID,))
        response = await self._reads.time_to_live(request)
        self._executor.fill(response.header)
        return response

    async def LeaseLeases(
        self, request: lease_pb2.LeaseLeasesRequest, caller: Caller
    ) -> lease_pb2.LeaseLeasesResponse:
        """All leases, those that end first in front."""
        await self._access.behind(self._executor.barrier, lambda: self._access.known(caller))
        response = self._reads.leases()
        self._access.leases(caller, [one.ID for one in response.leases])
        self._executor.fill(response.header)
        return response

    async def LeaseKeepAlive(self, channel: RequestStream[lease_pb2.LeaseKeepAliveRequest]) -> None:
        """One answer per request, in order; many may be under way."""
        answers: asyncio.Queue[_Answer | None] = asyncio.Queue(_PIPELINE)
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(channel, answers))
            while (request := await channel.read()) is not None:
                self._access.lease_write(channel.caller, request.ID)
                renewal = tasks.create_task(self._renewals.renew(request.ID))
                await answers.put((request.ID, self._executor.header(), renewal))
            await answers.put(None)
            await writer

    async def _write(
        self, channel: RequestStream[lease_pb2.LeaseKeepAliveRequest], answers: asyncio.Queue[_Answer | None]
    ) -> None:
        while (answer := await answers.get()) is not None:
            lease, header, renewal = answer
            ttl = await renewal
            await channel.write(lease_pb2.LeaseKeepAliveResponse(header=header, ID=lease, TTL=ttl))
