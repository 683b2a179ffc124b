"""The calls of one member, typed: a method path, what goes in and what comes out."""

from __future__ import annotations

from typing import TypeVar

import grpc.aio
from google.protobuf.message import Message

from connect_kv.rpc import (
    cluster_pb2,
    election_pb2,
    kv_pb2,
    lease_pb2,
    lock_pb2,
    machine_pb2,
    maintenance_pb2,
    session_pb2,
    watch_pb2,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


def _unary(
    channel: grpc.aio.Channel, path: str, request: type[Request], response: type[Response]
) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
    return channel.unary_unary(
        f"/connect_kv.v1.{path}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


def _server_stream(
    channel: grpc.aio.Channel, path: str, request: type[Request], response: type[Response]
) -> grpc.aio.UnaryStreamMultiCallable[Request, Response]:
    return channel.unary_stream(
        f"/connect_kv.v1.{path}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


def _streams(
    channel: grpc.aio.Channel, path: str, request: type[Request], response: type[Response]
) -> grpc.aio.StreamStreamMultiCallable[Request, Response]:
    return channel.stream_stream(
        f"/connect_kv.v1.{path}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )


class Stubs:
    """What one member can be asked. Calls raise `grpc.aio.AioRpcError`; `failures` explains those."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.range = _unary(channel, "KV/Range", kv_pb2.RangeRequest, kv_pb2.RangeResponse)
        self.put = _unary(channel, "KV/Put", kv_pb2.PutRequest, kv_pb2.PutResponse)
        self.delete_range = _unary(
            channel, "KV/DeleteRange", kv_pb2.DeleteRangeRequest, kv_pb2.DeleteRangeResponse
        )
        self.txn = _unary(channel, "KV/Txn", kv_pb2.TxnRequest, kv_pb2.TxnResponse)
        self.compact = _unary(channel, "KV/Compact", kv_pb2.CompactionRequest, kv_pb2.CompactionResponse)
        self.watch = _streams(channel, "Watch/Watch", watch_pb2.WatchRequest, watch_pb2.WatchResponse)
        self.lease_grant = _unary(
            channel, "Lease/LeaseGrant", lease_pb2.LeaseGrantRequest, lease_pb2.LeaseGrantResponse
        )
        self.lease_revoke = _unary(
            channel, "Lease/LeaseRevoke", lease_pb2.LeaseRevokeRequest, lease_pb2.LeaseRevokeResponse
        )
        self.lease_keep_alive = _streams(
            channel, "Lease/LeaseKeepAlive", lease_pb2.LeaseKeepAliveRequest, lease_pb2.LeaseKeepAliveResponse
        )
        self.lease_time_to_live = _unary(
            channel,
            "Lease/LeaseTimeToLive",
            lease_pb2.LeaseTimeToLiveRequest,
            lease_pb2.LeaseTimeToLiveResponse,
        )
        self.lease_leases = _unary(
            channel, "Lease/LeaseLeases", lease_pb2.LeaseLeasesRequest, lease_pb2.LeaseLeasesResponse
        )
        self.member_list = _unary(
            channel, "Cluster/MemberList", cluster_pb2.MemberListRequest, cluster_pb2.MemberListResponse
        )
        self.member_add = _unary(
            channel, "Cluster/MemberAdd", cluster_pb2.MemberAddRequest, cluster_pb2.MemberAddResponse
        )
        self.member_remove = _unary(
            channel, "Cluster/MemberRemove", cluster_pb2.MemberRemoveRequest, cluster_pb2.MemberRemoveResponse
        )
        self.member_update = _unary(
            channel, "Cluster/MemberUpdate", cluster_pb2.MemberUpdateRequest, cluster_pb2.MemberUpdateResponse
        )
        self.member_promote = _unary(
            channel,
            "Cluster/MemberPromote",
            cluster_pb2.MemberPromoteRequest,
            cluster_pb2.MemberPromoteResponse,
        )
        self.alarm = _unary(
            channel, "Maintenance/Alarm", maintenance_pb2.AlarmRequest, maintenance_pb2.AlarmResponse
        )
        self.hash_kv = _unary(
            channel, "Maintenance/HashKV", maintenance_pb2.HashKVRequest, maintenance_pb2.HashKVResponse
        )
        self.defragment = _unary(
            channel,
            "Maintenance/Defragment",
            maintenance_pb2.DefragmentRequest,
            maintenance_pb2.DefragmentResponse,
        )
        self.move_leader = _unary(
            channel,
            "Maintenance/MoveLeader",
            maintenance_pb2.MoveLeaderRequest,
            maintenance_pb2.MoveLeaderResponse,
        )
        self.snapshot = _server_stream(
            channel, "Maintenance/Snapshot", maintenance_pb2.SnapshotRequest, maintenance_pb2.SnapshotResponse
        )
        self.lock = _unary(channel, "Lock/Lock", lock_pb2.LockRequest, lock_pb2.LockResponse)
        self.unlock = _unary(channel, "Lock/Unlock", lock_pb2.UnlockRequest, lock_pb2.UnlockResponse)
        self.campaign = _unary(
            channel, "Election/Campaign", election_pb2.CampaignRequest, election_pb2.CampaignResponse
        )
        self.proclaim = _unary(
            channel, "Election/Proclaim", election_pb2.ProclaimRequest, election_pb2.ProclaimResponse
        )
        self.leader = _unary(
            channel, "Election/Leader", election_pb2.LeaderRequest, election_pb2.LeaderResponse
        )
        self.observe = _server_stream(
            channel, "Election/Observe", election_pb2.LeaderRequest, election_pb2.LeaderResponse
        )
        self.resign = _unary(
            channel, "Election/Resign", election_pb2.ResignRequest, election_pb2.ResignResponse
        )
        self.status = _unary(
            channel, "Maintenance/Status", maintenance_pb2.StatusRequest, maintenance_pb2.StatusResponse
        )
        self.machine_call = _unary(
            channel, "Machine/Call", machine_pb2.MachineCallRequest, machine_pb2.MachineCallResponse
        )
        self.machine_describe = _unary(
            channel,
            "Machine/Describe",
            machine_pb2.MachineDescribeRequest,
            machine_pb2.MachineDescribeResponse,
        )
        self.session: grpc.aio.StreamStreamMultiCallable[bytes, session_pb2.SessionReplies] = (
            channel.stream_stream(
                "/connect_kv.v1.Session/Open",
                request_serializer=bytes,  # SessionRequests that are encoded already
                response_deserializer=session_pb2.SessionReplies.FromString,
            )
        )
