"""The calls of one member, typed: a method path, what goes in and what comes out.

The only module of the client that knows the gRPC library; it is loaded when the first channel is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from connect_kv.client.failures import UNAVAILABLE, CallFailed, EndedHere
from connect_kv.credentials import Credentials
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

Request = TypeVar("Request")
Response = TypeVar("Response")
In = TypeVar("In", bound=Message)
Out = TypeVar("Out", bound=Message)
Metadata = Sequence[tuple[str, str]]

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),  # without it, a missing answer is noticed after a minute
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # what may be sent again is decided in `retry` and `session`
)


def open_channel(
    address: str, credentials: Credentials | None = None, server_name: str = ""
) -> grpc.aio.Channel:
    """The channel a client uses unless it is given another; over TLS with credentials.

    `server_name`: that the server's certificate must have, if not the host of `address`.
    """
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
    return grpc.aio.secure_channel(address, credentials.grpc_channel(), options=(*CHANNEL_OPTIONS, *named))


class Unary(Generic[Request, Response]):
    """A call with one request and one answer."""

    def __init__(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response]) -> None:
        self._method = method

    async def __call__(
        self, request: Request, *, timeout: float | None = None, metadata: Metadata | None = None
    ) -> Response:
        """The answer, within `timeout` seconds if given. Raises CallFailed."""
        try:
            return await self._method(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None


class ServerStream(Generic[Request, Response]):
    """A call with one request and many answers."""

    def __init__(self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response]) -> None:
        self._method = method

    async def __call__(self, request: Request) -> AsyncGenerator[Response, None]:
        """The answers, in order. Raises CallFailed; closing it early ends the call."""
        call = self._method(request)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None
        finally:
            call.cancel()


class Stream(Generic[Request, Response]):
    """A call in both directions. `write` and `read` raise CallFailed once it is over, in order or not."""

    def __init__(self, call: grpc.aio.StreamStreamCall[Request, Response]) -> None:
        self._call = call

    async def write(self, request: Request) -> None:
        """Send one request; returns when there is room for the next."""
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None
        except asyncio.InvalidStateError:  # the library's word for: that call is over
            raise await self._end() from None

    async def read(self) -> Response:
        """The next answer."""
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None
        if answer is grpc.aio.EOF:
            raise await self._end()
        return answer  # type: ignore[return-value]  # the end of the stream was told apart above

    def cancel(self) -> None:
        """End it; reads and writes that wait fail."""
        self._call.cancel()

    async def _end(self) -> CallFailed:
        """What it ended with. An end in order is one all the same: these streams last as long as we want."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return CallFailed(UNAVAILABLE, "ended the stream")
        return CallFailed(
            code.value[0], await self._call.details(), _texts(await self._call.trailing_metadata())
        )


class Streams(Generic[Request, Response]):
    """Begins calls in both directions."""

    def __init__(self, method: grpc.aio.StreamStreamMultiCallable[Request, Response]) -> None:
        self._method = method

    def __call__(self, *, metadata: Metadata | None = None) -> Stream[Request, Response]:
        """A call that has not sent anything yet."""
        return Stream(self._method(metadata=metadata))


def _unary(channel: grpc.aio.Channel, path: str, request: type[In], response: type[Out]) -> Unary[In, Out]:
    return Unary(
        channel.unary_unary(
            f"/connect_kv.v1.{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
    )


def _server_stream(
    channel: grpc.aio.Channel, path: str, request: type[In], response: type[Out]
) -> ServerStream[In, Out]:
    return ServerStream(
        channel.unary_stream(
            f"/connect_kv.v1.{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
    )


def _streams(
    channel: grpc.aio.Channel, path: str, request: type[In], response: type[Out]
) -> Streams[In, Out]:
    return Streams(
        channel.stream_stream(
            f"/connect_kv.v1.{path}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
    )


class Stubs:
    """What one member can be asked. Calls raise CallFailed, which `failures` explains."""

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
        self.machine_status = _unary(
            channel,
            "Machine/Status",
            machine_pb2.MachineStatusRequest,
            machine_pb2.MachineStatusResponse,
        )
        self.machine_decide = _unary(
            channel,
            "Machine/Decide",
            machine_pb2.MachineDecideRequest,
            machine_pb2.MachineDecideResponse,
        )
        self.machine_describe = _unary(
            channel,
            "Machine/Describe",
            machine_pb2.MachineDescribeRequest,
            machine_pb2.MachineDescribeResponse,
        )
        self.session: Streams[bytes, session_pb2.SessionReplies] = Streams(
            channel.stream_stream(
                "/connect_kv.v1.Session/Open",
                request_serializer=bytes,  # SessionRequests that are encoded already
                response_deserializer=session_pb2.SessionReplies.FromString,
            )
        )


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    return CallFailed(error.code().value[0], error.details() or "", _texts(error.trailing_metadata()))


def _ended(cancelled: asyncio.CancelledError) -> asyncio.CancelledError | EndedHere:
    """The library raises CancelledError as well when some other task ended the call on our side.

    Whoever waits must not take that for its own cancellation: a task group would end as if all were well.
    """
    task = asyncio.current_task()
    return cancelled if task is None or task.cancelling() else EndedHere()


def _texts(metadata: grpc.aio.Metadata | None) -> dict[str, str]:
    return {key: value if isinstance(value, str) else value.decode() for key, value in metadata or ()}
