"""The calls of one member, typed: a method path, what goes in and what comes out.

The only module of the client that knows the gRPC library; it is loaded when the first channel is opened.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from connect_kv import tracing
from connect_kv.client.failures import UNAVAILABLE, CallFailed, EndedHere
from connect_kv.client.login import Badge, Login, logged_out
from connect_kv.credentials import Credentials
from connect_kv.rpc import (
    auth_pb2,
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

LOGINS_FOR_A_CALL = 3
"""A token may die between a login and the call: with JSON Web Tokens, by any change of any user."""


def open_channel(
    address: str,
    credentials: Credentials | None = None,
    server_name: str = "",
    options: tuple[tuple[str, int], ...] = (),
) -> grpc.aio.Channel:
    """The channel a client uses unless it is given another; over TLS with credentials.

    `server_name`: that the server's certificate must have, if not the host of `address`. `options`: beside
    those of all.
    """
    chosen = (*CHANNEL_OPTIONS, *options)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=chosen)
    named = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
    return grpc.aio.secure_channel(address, credentials.grpc_channel(), options=(*chosen, *named))


class Unary(Generic[Request, Response]):
    """A call with one request and one answer."""

    def __init__(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], badge: Badge | None = None
    ) -> None:
        self._method = method
        self._badge = badge

    async def __call__(
        self, request: Request, *, timeout: float | None = None, metadata: Metadata = ()
    ) -> Response:
        """The answer, within `timeout` seconds if given. Raises CallFailed."""
        if self._badge is None:
            return await self._call(request, timeout, metadata)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        attempts = LOGINS_FOR_A_CALL
        while True:
            left = None if deadline is None else deadline - loop.time()
            shown = await self._badge.show(left)
            left = None if deadline is None else max(0.0, deadline - loop.time())
            try:
                return await self._call(request, left, (*metadata, *shown))
            except CallFailed as error:
                attempts -= 1
                if not self._badge.refused(shown, error.text) or not attempts:
                    raise

    async def _call(self, request: Request, timeout: float | None, metadata: Metadata) -> Response:
        if trace := tracing.current():
            metadata = (*metadata, (tracing.HEADER, trace))
        try:
            return await self._method(request, timeout=timeout, metadata=metadata or None)
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None


class UnaryStream(Generic[Request, Response]):
    """A call with one request and many answers."""

    def __init__(
        self, method: grpc.aio.UnaryStreamMultiCallable[Request, Response], badge: Badge | None = None
    ) -> None:
        self._method = method
        self._badge = badge

    async def __call__(self, request: Request) -> AsyncGenerator[Response, None]:
        """The answers, in order. Raises CallFailed; closing it early ends the call."""
        shown = () if self._badge is None else await self._badge.show()
        call = self._method(request, metadata=shown or None)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _refused(self._badge, shown, _failed(error)) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None
        finally:
            call.cancel()


class StreamCall(Generic[Request, Response]):
    """A call in both directions. `write` and `read` raise CallFailed once it is over, in order or not."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[Request, Response],
        badge: Badge | None = None,
        shown: Metadata = (),
    ) -> None:
        self._call = call
        self._badge = badge
        self._shown = tuple(shown)

    async def write(self, request: Request) -> None:
        """Send one request; returns when there is room for the next."""
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise self._judged(_failed(error)) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None
        except asyncio.InvalidStateError:  # the library's word for: that call is over
            raise await self._end() from None

    async def read(self) -> Response:
        """The next answer."""
        try:
            answer = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise self._judged(_failed(error)) from error
        except asyncio.CancelledError as cancelled:
            raise _ended(cancelled) from None
        if answer is grpc.aio.EOF:
            raise await self._end()
        return answer  # type: ignore[return-value]  # the end of the stream was told apart above

    def logged_out(self, text: str) -> bool:
        """Whether an answer says that this stream's token is no longer known, and another login may help.

        Begin another stream then.
        """
        return self._badge is not None and self._badge.refused(self._shown, text)

    def cancel(self) -> None:
        """End it; reads and writes that wait fail."""
        self._call.cancel()

    async def _end(self) -> CallFailed:
        """What it ended with. An end in order is one all the same: these streams last as long as we want."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return CallFailed(UNAVAILABLE, "ended the stream")
        told = _texts(await self._call.trailing_metadata())
        return self._judged(CallFailed(code.value[0], await self._call.details(), told))

    def _judged(self, error: CallFailed) -> CallFailed:
        return _refused(self._badge, self._shown, error)


class StreamStream(Generic[Request, Response]):
    """Begins calls in both directions."""

    def __init__(
        self, method: grpc.aio.StreamStreamMultiCallable[Request, Response], badge: Badge | None = None
    ) -> None:
        self._method = method
        self._badge = badge

    async def __call__(self, *, metadata: Metadata = ()) -> StreamCall[Request, Response]:
        """A call that has not sent anything yet. Raises CallFailed where a login fails."""
        shown = () if self._badge is None else await self._badge.show()
        return StreamCall(self._method(metadata=(*metadata, *shown) or None), self._badge, shown)


def _refused(badge: Badge | None, shown: Metadata, error: CallFailed) -> CallFailed:
    """What to raise for the end of a stream: another word for one that a new login makes good."""
    return logged_out() if badge is not None and badge.refused(tuple(shown), error.text) else error


FILES = (
    auth_pb2, cluster_pb2, election_pb2, kv_pb2, lease_pb2, lock_pb2, machine_pb2, maintenance_pb2,
    session_pb2, watch_pb2,
)  # fmt: skip
"""What the protos that have services were made into."""


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Every call of the protos, under the name that it has in `Stubs`.

    That is the method's, in Python's way of writing; where it says nothing by itself, as in Machine.Call, it
    begins with the service's. Session.Open is what one opens: a session.
    """
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method.name).lower()
                if service.name == "Machine":
                    name = f"machine_{name}"
                yield "session" if service.name == "Session" else name, method


class Stubs:
    """What one member can be asked. Calls raise CallFailed, which `failures` explains.

    The types are for readers and checkers; what is sent where is read from the protos (`methods`), and a
    test keeps the two together.
    """

    # KV
    range: Unary[kv_pb2.RangeRequest, kv_pb2.RangeResponse]
    put: Unary[kv_pb2.PutRequest, kv_pb2.PutResponse]
    delete_range: Unary[kv_pb2.DeleteRangeRequest, kv_pb2.DeleteRangeResponse]
    txn: Unary[kv_pb2.TxnRequest, kv_pb2.TxnResponse]
    compact: Unary[kv_pb2.CompactionRequest, kv_pb2.CompactionResponse]

    # Watch
    watch: StreamStream[watch_pb2.WatchRequest, watch_pb2.WatchResponse]

    # Lease
    lease_grant: Unary[lease_pb2.LeaseGrantRequest, lease_pb2.LeaseGrantResponse]
    lease_revoke: Unary[lease_pb2.LeaseRevokeRequest, lease_pb2.LeaseRevokeResponse]
    lease_keep_alive: StreamStream[lease_pb2.LeaseKeepAliveRequest, lease_pb2.LeaseKeepAliveResponse]
    lease_time_to_live: Unary[lease_pb2.LeaseTimeToLiveRequest, lease_pb2.LeaseTimeToLiveResponse]
    lease_leases: Unary[lease_pb2.LeaseLeasesRequest, lease_pb2.LeaseLeasesResponse]

    # Cluster
    member_list: Unary[cluster_pb2.MemberListRequest, cluster_pb2.MemberListResponse]
    member_add: Unary[cluster_pb2.MemberAddRequest, cluster_pb2.MemberAddResponse]
    member_remove: Unary[cluster_pb2.MemberRemoveRequest, cluster_pb2.MemberRemoveResponse]
    member_update: Unary[cluster_pb2.MemberUpdateRequest, cluster_pb2.MemberUpdateResponse]
    member_promote: Unary[cluster_pb2.MemberPromoteRequest, cluster_pb2.MemberPromoteResponse]

    # Maintenance
    alarm: Unary[maintenance_pb2.AlarmRequest, maintenance_pb2.AlarmResponse]
    hash_kv: Unary[maintenance_pb2.HashKVRequest, maintenance_pb2.HashKVResponse]
    defragment: Unary[maintenance_pb2.DefragmentRequest, maintenance_pb2.DefragmentResponse]
    move_leader: Unary[maintenance_pb2.MoveLeaderRequest, maintenance_pb2.MoveLeaderResponse]
    snapshot: UnaryStream[maintenance_pb2.SnapshotRequest, maintenance_pb2.SnapshotResponse]
    status: Unary[maintenance_pb2.StatusRequest, maintenance_pb2.StatusResponse]

    # Lock
    lock: Unary[lock_pb2.LockRequest, lock_pb2.LockResponse]
    unlock: Unary[lock_pb2.UnlockRequest, lock_pb2.UnlockResponse]

    # Election
    campaign: Unary[election_pb2.CampaignRequest, election_pb2.CampaignResponse]
    proclaim: Unary[election_pb2.ProclaimRequest, election_pb2.ProclaimResponse]
    leader: Unary[election_pb2.LeaderRequest, election_pb2.LeaderResponse]
    observe: UnaryStream[election_pb2.LeaderRequest, election_pb2.LeaderResponse]
    resign: Unary[election_pb2.ResignRequest, election_pb2.ResignResponse]

    # Machine
    machine_call: Unary[machine_pb2.MachineCallRequest, machine_pb2.MachineCallResponse]
    machine_status: Unary[machine_pb2.MachineStatusRequest, machine_pb2.MachineStatusResponse]
    machine_decide: Unary[machine_pb2.MachineDecideRequest, machine_pb2.MachineDecideResponse]
    machine_describe: Unary[machine_pb2.MachineDescribeRequest, machine_pb2.MachineDescribeResponse]

    # Session
    session: StreamStream[bytes, session_pb2.SessionReplies]
    """Takes SessionRequests that are encoded already."""

    # Auth
    authenticate: Unary[auth_pb2.AuthenticateRequest, auth_pb2.AuthenticateResponse]
    auth_enable: Unary[auth_pb2.AuthEnableRequest, auth_pb2.AuthEnableResponse]
    auth_disable: Unary[auth_pb2.AuthDisableRequest, auth_pb2.AuthDisableResponse]
    auth_status: Unary[auth_pb2.AuthStatusRequest, auth_pb2.AuthStatusResponse]
    user_add: Unary[auth_pb2.AuthUserAddRequest, auth_pb2.AuthUserAddResponse]
    user_get: Unary[auth_pb2.AuthUserGetRequest, auth_pb2.AuthUserGetResponse]
    user_list: Unary[auth_pb2.AuthUserListRequest, auth_pb2.AuthUserListResponse]
    user_delete: Unary[auth_pb2.AuthUserDeleteRequest, auth_pb2.AuthUserDeleteResponse]
    user_change_password: Unary[
        auth_pb2.AuthUserChangePasswordRequest, auth_pb2.AuthUserChangePasswordResponse
    ]
    user_grant_role: Unary[auth_pb2.AuthUserGrantRoleRequest, auth_pb2.AuthUserGrantRoleResponse]
    user_revoke_role: Unary[auth_pb2.AuthUserRevokeRoleRequest, auth_pb2.AuthUserRevokeRoleResponse]
    role_add: Unary[auth_pb2.AuthRoleAddRequest, auth_pb2.AuthRoleAddResponse]
    role_get: Unary[auth_pb2.AuthRoleGetRequest, auth_pb2.AuthRoleGetResponse]
    role_list: Unary[auth_pb2.AuthRoleListRequest, auth_pb2.AuthRoleListResponse]
    role_delete: Unary[auth_pb2.AuthRoleDeleteRequest, auth_pb2.AuthRoleDeleteResponse]
    role_grant_permission: Unary[
        auth_pb2.AuthRoleGrantPermissionRequest, auth_pb2.AuthRoleGrantPermissionResponse
    ]
    role_revoke_permission: Unary[
        auth_pb2.AuthRoleRevokePermissionRequest, auth_pb2.AuthRoleRevokePermissionResponse
    ]

    def __init__(self, channel: grpc.aio.Channel, login: Login | None = None) -> None:
        """`login`: whom calls are made for; None: for nobody."""
        self._channel = channel
        self._badge = None if login is None else Badge(login, self._token)

    if not TYPE_CHECKING:  # checkers would take any name for a call

        def __getattr__(self, name: str) -> Any:
            """A call when it is first asked for: there are some fifty, and most channels need a few."""
            method = _offered().get(name)
            if method is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            call = _call(self._channel, method, None if name == "authenticate" else self._badge)
            setattr(self, name, call)
            return call

    async def _token(self, name: str, password: str, seconds: float) -> str:
        """Log in."""
        request = auth_pb2.AuthenticateRequest(name=name, password=password)
        return (await self.authenticate(request, timeout=seconds)).token


@cache
def _offered() -> Mapping[str, MethodDescriptor]:
    """The calls that `Stubs` has."""
    return {name: method for name, method in methods() if name in Stubs.__annotations__}


def _call(
    channel: grpc.aio.Channel, method: MethodDescriptor, badge: Badge | None
) -> Unary[Any, Any] | UnaryStream[Any, Any] | StreamStream[Any, Any]:
    path = f"/{method.containing_service.full_name}/{method.name}"
    encoded = method.containing_service.name == "Session"
    how: dict[str, Any] = {
        "request_serializer": bytes if encoded else GetMessageClass(method.input_type).SerializeToString,
        "response_deserializer": GetMessageClass(method.output_type).FromString,
    }
    if method.client_streaming:
        return StreamStream(channel.stream_stream(path, **how), badge)
    if method.server_streaming:
        return UnaryStream(channel.unary_stream(path, **how), badge)
    return Unary(channel.unary_unary(path, **how), badge)


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
