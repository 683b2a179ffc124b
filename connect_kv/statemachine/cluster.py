"""Alarms, and what members have published about themselves: a small part of the replicated state."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf.message import DecodeError

from connect_kv.errors import CorruptStorage
from connect_kv.events import Signal
from connect_kv.kv.layout import Changes
from connect_kv.rpc.command_pb2 import MemberPublish
from connect_kv.rpc.maintenance_pb2 import NONE, AlarmMember, AlarmRequest, AlarmResponse, AlarmType
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader

logger = logging.getLogger(__name__)

_ALARM = struct.Struct(">BBQI")
"""prefix, kind of record, member, alarm"""
_MEMBER = struct.Struct(">BBQ")
_ALARM_KIND = 1
_MEMBER_KIND = 2

Alarm = tuple[int, int]
"""(member id, AlarmType)"""


class ClusterTable:
    """Used by apply; reads see what the last whole slice left."""

    def __init__(self) -> None:
        self._alarms: set[Alarm] = set()
        self._members: dict[int, MemberPublish] = {}
        self.alarms_changed = Signal()
        """One is on or off that was not."""

    def load(self, reader: Reader) -> None:
        """Replace everything by what is stored. Raises CorruptStorage."""
        self._alarms.clear()
        self._members.clear()
        start, stop = bytes((codec.CLUSTER,)), bytes((codec.CLUSTER + 1,))
        try:
            for key, value in reader.iterate(start, stop):
                if key[1] == _ALARM_KIND:
                    _, _, member, alarm = _ALARM.unpack(key)
                    self._alarms.add((member, alarm))
                else:
                    published = MemberPublish.FromString(value)
                    self._members[published.id] = published
        except (struct.error, IndexError, DecodeError) as error:
            raise CorruptStorage("state", f"cluster table: {error}") from error
        self.alarms_changed.fire()

    @property
    def members(self) -> Mapping[int, MemberPublish]:
        """What each member last published, by its id."""
        return MappingProxyType(self._members)

    def alarms(self, alarm: int = NONE) -> list[AlarmMember]:
        """Active alarms of one type, or all, sorted."""
        return [_member(one) for one in sorted(self._alarms) if alarm in (NONE, one[1])]

    def active(self, alarm: int) -> bool:
        """Whether any member has raised it."""
        return any(raised == alarm for _, raised in self._alarms)

    def understood_by_all(self, command: int, members: Iterable[int]) -> bool:
        """Whether every one of these members has said that it can apply that command number."""
        published = self._members
        return all(id in published and published[id].highest_command >= command for id in members)

    def not_understood_by_one(self, command: int, members: Iterable[int]) -> bool:
        """Whether one of these members has said that it cannot apply that command number.

        Who has never said anything has never run, in a cluster whose members all say it when they start.
        """
        published = self._members
        return any(id in published and published[id].highest_command < command for id in members)

    def alarm(self, request: AlarmRequest, changes: Changes) -> AlarmResponse:
        """Get, raise or end an alarm. One that is on, or off, already is no error."""
        one = (request.memberID, int(request.alarm))
        if request.action == AlarmRequest.GET:
            return AlarmResponse(alarms=self.alarms(request.alarm))
        if request.alarm == NONE:
            return AlarmResponse()
        if request.action == AlarmRequest.ACTIVATE:
            if one not in self._alarms:
                logger.warning("an alarm is on", extra=_fields(one))
            self._alarms.add(one)
            changes.put(_alarm_key(one), b"")
            self.alarms_changed.fire()
            return AlarmResponse(alarms=[_member(one)])
        if one not in self._alarms:
            return AlarmResponse()
        logger.info("an alarm was ended", extra=_fields(one))
        self._alarms.remove(one)
        changes.delete(_alarm_key(one))
        self.alarms_changed.fire()
        return AlarmResponse(alarms=[_member(one)])

    def publish(self, request: MemberPublish, changes: Changes) -> None:
        """A member says how it is reached and what it can apply."""
        kept = MemberPublish()
        kept.CopyFrom(request)
        self._members[request.id] = kept
        changes.put(_MEMBER.pack(codec.CLUSTER, _MEMBER_KIND, request.id), kept.SerializeToString())


def _fields(alarm: Alarm) -> dict[str, str]:
    """For the log. A number without a name may come from a newer member."""
    member, number = alarm
    known = number in AlarmType.values()
    return {
        "alarm": AlarmType.Name(AlarmType.ValueType(number)) if known else str(number),
        "member": f"{member:x}",
    }


def _alarm_key(alarm: Alarm) -> bytes:
    return _ALARM.pack(codec.CLUSTER, _ALARM_KIND, *alarm)


def _member(alarm: Alarm) -> AlarmMember:
    return AlarmMember(memberID=alarm[0], alarm=AlarmType.ValueType(alarm[1]))
