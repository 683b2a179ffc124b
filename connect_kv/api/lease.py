"""connect_kv.v1.Lease and etcdserverpb.Lease."""

from __future__ import annotations

import asyncio
import random

import grpc

from connect_kv.api.registrar import Context, read
from connect_kv.api.renewals import Renewals
from connect_kv.api.replica import Replica, field_number
from connect_kv.errors import Refused
from connect_kv.kv.machine import KvMachine
from connect_kv.rpc import lease_pb2

_GRANT = field_number("lease_grant")
_REVOKE = field_number("lease_revoke")
_PIPELINE = 256
"""Keep-alives of one stream that may await their answer at once."""
_ID_ATTEMPTS = 8
_ALREADY_EXISTS = "etcdserver: lease already exists"


_Answer = tuple[int, ResponseHeader, asyncio.Task[int]]


class LeaseService:
    """Leases: granted, renewed and revoked through the log, read behind a read barrier."""

    def __init__(
        self, replica: Replica, kv: KvMachine, renewals: Renewals, rng: random.Random, *, min_ttl: int
    ) -> None:
        """`min_ttl`: seconds; shorter grants are raised to it, so that they survive an election."""
        self._replica = replica
        self._kv = kv
        self._renewals = renewals
        self._rng = rng
        self._min_ttl = min_ttl

    async def LeaseGrant(
        self, request: lease_pb2.LeaseGrantRequest, context: Context
    ) -> lease_pb2.LeaseGrantResponse:
        """Grant a lease, under a random id unless one is given."""
        request.TTL = max(request.TTL, self._min_ttl)
        if request.ID:
            return await self._grant(request)
        for _ in range(_ID_ATTEMPTS):
            request.ID = self._rng.randrange(1, 1 << 63)
            try:
                return await self._grant(request)
            except Refused as error:
                if error.message != _ALREADY_EXISTS:
                    raise
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION.value[0], _ALREADY_EXISTS)

    async def _grant(self, request: lease_pb2.LeaseGrantRequest) -> lease_pb2.LeaseGrantResponse:
        result = await self._replica.execute(_GRANT, request.SerializeToString())
        response = result.lease_grant
        self._replica.fill(response.header)
        return response

    async def LeaseRevoke(
        self, request: lease_pb2.LeaseRevokeRequest, context: Context
    ) -> lease_pb2.LeaseRevokeResponse:
        """End a lease and delete its keys."""
        result = await self._replica.execute(_REVOKE, request.SerializeToString())
        response = result.lease_revoke
        self._replica.fill(response.header)
        return response

    async def LeaseTimeToLive(
        self, request: lease_pb2.LeaseTimeToLiveRequest, context: Context
    ) -> lease_pb2.LeaseTimeToLiveResponse:
        """What remains of a lease; TTL -1 if there is none."""
        await self._replica.barrier()
        response = self._reads.time_to_live(request)
        self._replica.fill(response.header)
        return response

    async def LeaseLeases(
        self, request: lease_pb2.LeaseLeasesRequest, context: Context
    ) -> lease_pb2.LeaseLeasesResponse:
        """All leases."""
        await self._replica.barrier()
        response = self._reads.leases()
        self._replica.fill(response.header)
        return response

    async def LeaseKeepAlive(self, context: Context) -> None:
        """One answer per request, in order; many may be under way."""
        answers: asyncio.Queue[_Answer | None] = asyncio.Queue(_PIPELINE)
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(context, answers))
            while (request := await read(context)) is not None:
                renewal = tasks.create_task(self._renewals.renew(request.ID))
                await answers.put((request.ID, self._replica.header(), renewal))
            await answers.put(None)
            await writer

    async def _write(self, context: Context, answers: asyncio.Queue[_Answer | None]) -> None:
        while (answer := await answers.get()) is not None:
            lease, header, renewal = answer
            ttl = await renewal
            await context.write(lease_pb2.LeaseKeepAliveResponse(header=header, ID=lease, TTL=ttl))
