"""connect_kv.v1.Dashboard: what the dashboard shows that etcd's calls do not tell."""

from __future__ import annotations

from collections.abc import Callable

from connect_kv.etcd_errors import Code, Refusal
from connect_kv.rpc import dashboard_pb2, machine_pb2
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.rpc.maintenance_pb2 import AlarmMember
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.lease_views import LeaseViews, allowed
from connect_kv.services.machine import MachineService
from connect_kv.services.overview import Overviews

_LEASES = 50
_MOST_LEASES = 500
_BAD_PAGE = Refusal(Code.INVALID_ARGUMENT, "connect-kv: skip and limit must not be negative")


class DashboardService:
    """Reads alone. The first two calls need no leader: they are there for when there is none."""

    def __init__(
        self,
        executor: CommandExecutor,
        overviews: Overviews,
        leases: LeaseViews,
        machines: MachineService,
        access: Access,
        alarms: Callable[[], list[AlarmMember]],
    ) -> None:
        self._executor = executor
        self._overviews = overviews
        self._leases = leases
        self._machines = machines
        self._access = access
        self._alarms = alarms

    async def Overview(
        self, request: dashboard_pb2.OverviewRequest, caller: Caller
    ) -> dashboard_pb2.OverviewResponse:
        """All members, each with what it says of itself, or since when it says nothing."""
        self._access.known(caller)
        response = await self._overviews.all()
        response.outage = self._executor.why()
        response.alarms.extend(self._alarms())
        response.header.CopyFrom(self._executor.header())
        return response

    async def History(
        self, request: dashboard_pb2.HistoryRequest, caller: Caller
    ) -> dashboard_pb2.HistoryResponse:
        """The last hour of one member."""
        self._access.known(caller)
        response = await self._overviews.history(request)
        response.header.CopyFrom(self._executor.header())
        return response

    async def Leases(
        self, request: dashboard_pb2.LeasesRequest, caller: Caller
    ) -> dashboard_pb2.LeasesResponse:
        """Some leases; of one whose keys the caller may not read, how many there are."""
        if request.skip < 0 or request.limit < 0:
            raise _BAD_PAGE.error()
        await self._access.behind(self._executor.barrier, lambda: self._access.known(caller))
        limit = min(request.limit or _LEASES, _MOST_LEASES)
        response = await self._leases.leases(
            request.skip, limit, lambda lease: allowed(lambda: self._access.leases(caller, (lease,)))
        )
        response.header.CopyFrom(self._executor.header())
        return response

    async def Queues(
        self, request: dashboard_pb2.QueuesRequest, caller: Caller
    ) -> dashboard_pb2.QueuesResponse:
        """Locks and elections whose keys the caller may read."""
        await self._access.behind(self._executor.barrier, lambda: self._access.known(caller))

        def may_read(key: bytes, range_end: bytes) -> bool:
            asked = RangeRequest(key=key, range_end=range_end)
            return allowed(lambda: self._access.range(caller, asked))

        response = await self._leases.held(may_read)
        response.header.CopyFrom(self._executor.header())
        return response

    async def Query(
        self, request: machine_pb2.MachineCallRequest, caller: Caller
    ) -> machine_pb2.MachineCallResponse:
        """Call a query of a machine; a command is refused, so that who may only look can be let in."""
        return await self._machines.query(request, caller)
