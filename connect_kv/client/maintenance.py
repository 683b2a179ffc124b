"""MaintenanceClient: what an operator asks of single members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from connect_kv.client.endpoints import Endpoint, Endpoints
from connect_kv.client.failures import CallFailed, from_rpc
from connect_kv.client.retry import UnaryCalls
from connect_kv.rpc.maintenance_pb2 import (
    NONE,
    AlarmMember,
    AlarmRequest,
    AlarmType,
    DefragmentRequest,
    HashKVRequest,
    HashKVResponse,
    MoveLeaderRequest,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
)

__all__ = ["MaintenanceClient"]


class MaintenanceClient:
    """``client.maintenance``. An empty `endpoint` stands for the first member that answers."""

    def __init__(self, endpoints: Endpoints, timeout: float) -> None:
        self._endpoints = endpoints
        self._calls = UnaryCalls(endpoints, timeout)

    async def alarms(
        self, alarm: AlarmType.ValueType = NONE, *, timeout: float | None = None
    ) -> list[AlarmMember]:
        """Those that are on: of one type, or all."""
        return await self._alarm(AlarmRequest(action=AlarmRequest.GET, alarm=alarm), timeout, writes=False)

    async def disarm(
        self, member: int, alarm: AlarmType.ValueType, *, timeout: float | None = None
    ) -> list[AlarmMember]:
        """End one alarm; returns it if it was on. A repetition does no harm."""
        request = AlarmRequest(action=AlarmRequest.DEACTIVATE, memberID=member, alarm=alarm)
        return await self._alarm(request, timeout, writes=False)

    async def hash_kv(
        self, endpoint: str = "", *, revision: int = 0, timeout: float | None = None
    ) -> HashKVResponse:
        """A member's hash of its keys and their history up to `revision` (0: all of it).

        Alike on all members at the same revision and compacted revision.
        """
        request = HashKVRequest(revision=revision)
        at = endpoint or None
        return await self._calls.ask(lambda stubs: stubs.hash_kv, request, timeout, writes=False, at=at)

    async def defragment(self, endpoint: str, *, timeout: float | None = None) -> None:
        """Have one member give back all disk space it does not need. It goes on serving."""
        request = DefragmentRequest()
        await self._calls.ask(lambda stubs: stubs.defragment, request, timeout, writes=False, at=endpoint)

    async def move_leader(self, endpoint: str, to: int, *, timeout: float | None = None) -> None:
        """Have the leader, which `endpoint` must be, hand over to that member."""
        request = MoveLeaderRequest(targetID=to)
        await self._calls.ask(lambda stubs: stubs.move_leader, request, timeout, writes=False, at=endpoint)

    async def snapshot(self, endpoint: str = "") -> AsyncGenerator[SnapshotResponse, None]:
        """A backup of everything one member holds, piece by piece; see `connect-kv snapshot`.

        The pieces' `blob` make up the file. It takes as long as it takes.
        """
        member = self._endpoints.find(endpoint) if endpoint else await self._working()
        try:
            async with aclosing(member.stubs.snapshot(SnapshotRequest())) as pieces:
                async for piece in pieces:
                    yield piece
        except CallFailed as error:
            raise from_rpc(error, writes=False) from error

    async def _alarm(
        self, request: AlarmRequest, timeout: float | None, *, writes: bool
    ) -> list[AlarmMember]:
        answer = await self._calls.ask(lambda stubs: stubs.alarm, request, timeout, writes=writes)
        return list(answer.alarms)

    async def _working(self) -> Endpoint:
        """A member that answers now."""
        await self._calls.ask(lambda stubs: stubs.status, StatusRequest(), None, writes=False)
        return self._endpoints.pick(asyncio.get_running_loop().time())[0]
