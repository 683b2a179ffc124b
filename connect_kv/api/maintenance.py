"""connect_kv.v1.Maintenance and etcdserverpb.Maintenance. What is not here answers UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connect_kv.api.registrar import Context
from connect_kv.api.replica import Replica, field_number
from connect_kv.kv import validation
from connect_kv.rpc import maintenance_pb2
from connect_kv.rpc.maintenance_pb2 import AlarmMember

ETCD_VERSION = "3.6.0"
"""What etcd clients are told: they switch features on it."""

_ALARM = field_number("alarm")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """One member's state, gathered when asked."""

    leader_id: int | None
    commit_index: int
    last_applied: int
    term: int
    is_learner: bool
    disk_bytes: int
    used_bytes: int
    quota_bytes: int
    errors: tuple[str, ...] = ()


class MaintenanceService:
    """What an operator asks of one member."""

    def __init__(
        self, replica: Replica, status: Callable[[], MemberStatus], alarms: Callable[[int], list[AlarmMember]]
    ) -> None:
        """`alarms` gives those of one type that are on, or all for type NONE."""
        self._replica = replica
        self._status = status
        self._alarms = alarms

    async def Alarm(
        self, request: maintenance_pb2.AlarmRequest, context: Context
    ) -> maintenance_pb2.AlarmResponse:
        """List alarms, or raise or end one; listing needs no entry of the log."""
        validation.check_alarm(request)
        if request.action == maintenance_pb2.AlarmRequest.GET:
            await self._replica.barrier()
            response = maintenance_pb2.AlarmResponse(alarms=self._alarms(request.alarm))
        else:
            response = (await self._replica.execute(_ALARM, request.SerializeToString())).alarm
        response.header.CopyFrom(self._replica.header())
        return response

    async def Status(
        self, request: maintenance_pb2.StatusRequest, context: Context
    ) -> maintenance_pb2.StatusResponse:
        """This member's state; needs no leader."""
        status = self._status()
        errors = list(status.errors)
        if status.leader_id is None:
            errors.insert(0, "etcdserver: no leader")
        return maintenance_pb2.StatusResponse(
            header=self._replica.header(),
            version=ETCD_VERSION,
            dbSize=status.disk_bytes,
            dbSizeInUse=status.used_bytes,
            leader=status.leader_id or 0,
            raftIndex=status.commit_index,
            raftTerm=status.term,
            raftAppliedIndex=status.last_applied,
            errors=errors,
            isLearner=status.is_learner,
            storageVersion=ETCD_VERSION,
            dbSizeQuota=status.quota_bytes,
            downgradeInfo=maintenance_pb2.DowngradeInfo(),
        )
