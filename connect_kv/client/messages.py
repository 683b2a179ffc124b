"""The messages that the client's calls take and give, under one roof.

They are the API's own: `KeyValue` has key, value, create_revision, mod_revision, version, lease.
"""

from __future__ import annotations

from typing import TypeAlias

from connect_kv.rpc.cluster_pb2 import Member
from connect_kv.rpc.kv_pb2 import (
    CompactionResponse,
    Compare,
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnResponse,
)
from connect_kv.rpc.lease_pb2 import LeaseTimeToLiveResponse
from connect_kv.rpc.machine_pb2 import MachineDescribeResponse, MachineStatusResponse
from connect_kv.rpc.maintenance_pb2 import AlarmMember, AlarmType, HashKVResponse, StatusResponse

SortOrder: TypeAlias = RangeRequest.SortOrder.ValueType
SortTarget: TypeAlias = RangeRequest.SortTarget.ValueType
NONE = RangeRequest.NONE
KEY = RangeRequest.KEY
MachineDescription: TypeAlias = MachineDescribeResponse.Machine
MachineMember: TypeAlias = MachineStatusResponse.Member
MachineState: TypeAlias = MachineStatusResponse.Machine
MethodDescription: TypeAlias = MachineDescribeResponse.Method

__all__ = [
    "KEY",
    "NONE",
    "AlarmMember",
    "AlarmType",
    "CompactionResponse",
    "Compare",
    "DeleteRangeResponse",
    "Event",
    "HashKVResponse",
    "KeyValue",
    "LeaseTimeToLiveResponse",
    "MachineDescription",
    "Member",
    "MethodDescription",
    "PutResponse",
    "RangeRequest",
    "RangeResponse",
    "RequestOp",
    "ResponseOp",
    "SortOrder",
    "SortTarget",
    "StatusResponse",
    "TxnResponse",
]
