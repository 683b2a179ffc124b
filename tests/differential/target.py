"""One server under test, spoken to by method name with our message classes under etcd's service names."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc import election_pb2 as election
from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import lock_pb2 as lock
from connect_kv.rpc import watch_pb2 as watch

_MANAGEMENT = (
    "UserAdd", "UserGet", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole", "UserRevokeRole",
    "RoleAdd", "RoleGet", "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
)  # fmt: skip

METHODS: dict[str, tuple[str, Any]] = {
    "RangeRequest": ("/etcdserverpb.KV/Range", kv.RangeResponse),
    "PutRequest": ("/etcdserverpb.KV/Put", kv.PutResponse),
    "DeleteRangeRequest": ("/etcdserverpb.KV/DeleteRange", kv.DeleteRangeResponse),
    "TxnRequest": ("/etcdserverpb.KV/Txn", kv.TxnResponse),
    "CompactionRequest": ("/etcdserverpb.KV/Compact", kv.CompactionResponse),
    "LeaseGrantRequest": ("/etcdserverpb.Lease/LeaseGrant", lease.LeaseGrantResponse),
    "LeaseRevokeRequest": ("/etcdserverpb.Lease/LeaseRevoke", lease.LeaseRevokeResponse),
    "LeaseTimeToLiveRequest": ("/etcdserverpb.Lease/LeaseTimeToLive", lease.LeaseTimeToLiveResponse),
    "LeaseLeasesRequest": ("/etcdserverpb.Lease/LeaseLeases", lease.LeaseLeasesResponse),
    "LockRequest": ("/v3lockpb.Lock/Lock", lock.LockResponse),
    "UnlockRequest": ("/v3lockpb.Lock/Unlock", lock.UnlockResponse),
    "CampaignRequest": ("/v3electionpb.Election/Campaign", election.CampaignResponse),
    "ProclaimRequest": ("/v3electionpb.Election/Proclaim", election.ProclaimResponse),
    "LeaderRequest": ("/v3electionpb.Election/Leader", election.LeaderResponse),
    "ResignRequest": ("/v3electionpb.Election/Resign", election.ResignResponse),
    **{
        f"Auth{name}Request": (f"/etcdserverpb.Auth/{method}", getattr(auth, f"Auth{name}Response"))
        for name, method in (
            ("Enable", "AuthEnable"),
            ("Disable", "AuthDisable"),
            ("Status", "AuthStatus"),
            ("enticate", "Authenticate"),
            *((name, name) for name in _MANAGEMENT),
        )
    },
}
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True)
class Failed:
    """A status other than OK."""

    code: str
    text: str

    @classmethod
    def of(cls, error: grpc.RpcError) -> Failed:
        """What a call raised."""
        return cls(error.code().name, error.details() or "")


class Stream:
    """A bidirectional stream: what came in is kept in order."""

    def __init__(self, method: Any) -> None:
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.received: list[Any] = []
        self.failed: Failed | None = None
        """How it ended, if not by us."""
        self.arrived = threading.Condition()
        self.catch_up: Callable[[], None] = lambda: None
        """Waits until the stream's node has everything acknowledged so far."""
        self._call = method(self._requests())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _requests(self) -> Iterator[Message]:
        while (request := self._outgoing.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for response in self._call:
                with self.arrived:
                    self.received.append(response)
                    self.arrived.notify_all()
        except grpc.RpcError as error:
            with self.arrived:
                self.failed = Failed.of(error)
                self.arrived.notify_all()

    def send(self, request: Message) -> None:
        self._outgoing.put(request)

    def next(self, position: int, timeout: float = 10.0) -> Any:
        """The response at that position, waited for."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self.received) > position, timeout):
                raise TimeoutError(f"no response {position} within {timeout:g} s")
            return self.received[position]

    def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait for more responses until the condition holds; whether it does."""
        with self.arrived:
            return self.arrived.wait_for(condition, timeout)

    def close(self) -> None:
        self._outgoing.put(None)
        self._call.cancel()
        self._reader.join(5)


class Target:
    """A server, or a cluster of some, reached at ``host:port[,host:port...]``; its nodes take turns."""

    def __init__(self, name: str, addresses: str) -> None:
        self.name = name
        self.nodes = [Node(address) for address in addresses.split(",")]
        self._turn = 0

    def begin(
        self, request: Message, *, needs_leader: bool = False, token: str | None = None
    ) -> Callable[[], Message | Failed]:
        """Send a unary call to the next node; what is returned waits for the answer."""
        node = self._next()
        if token is not None:
            return node.begin(request, token=token)
        if len(self.nodes) > 1 and reads_locally(request):
            node.catch_up()
        return node.begin(request, needs_leader=needs_leader)

    def call(self, request: Message) -> Message | Failed:
        """One unary call."""
        return self.begin(request)()

    def keep_alive(self) -> Stream:
        return self._stream("/etcdserverpb.Lease/LeaseKeepAlive", lease.LeaseKeepAliveResponse)

    def watch(self, *, limited: bool = False, token: str | None = None) -> Stream:
        """`limited`: by a client that takes messages of 4 MiB, as most do."""
        return self._stream("/etcdserverpb.Watch/Watch", watch.WatchResponse, limited=limited, token=token)

    def _stream(self, path: str, answer: Any, *, limited: bool = False, token: str | None = None) -> Stream:
        node = self._next()
        stream = node.stream(path, answer, limited=limited, token=token)
        stream.catch_up = node.catch_up
        return stream

    def range_stream(self, request: kv.RangeRequest) -> kv.RangeResponse | Failed:
        """The chunks of a RangeStream, merged."""
        node = self._next()
        if reads_locally(request):
            node.catch_up()
        return node.range_stream(request)

    def _next(self) -> Node:
        self._turn += 1
        return self.nodes[self._turn % len(self.nodes)]

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def reads_locally(request: Message) -> bool:
    """Whether the answer is the node's own state, which may be older than what another node answered."""
    if isinstance(request, kv.RangeRequest):
        return request.serializable
    if isinstance(request, kv.TxnRequest):
        operations = [*request.success, *request.failure]
        return all(op.request_range.serializable for op in operations if op.HasField("request_range"))
    return False


class Node:
    """One address."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._limited = grpc.insecure_channel(address)
        self._calls: dict[str, Any] = {
            request: self._channel.unary_unary(
                path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            for request, (path, answer) in METHODS.items()
        }
        self._range_stream: Any = self._channel.unary_stream(
            "/connect_kv.v1.KV/RangeStream",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=kv.RangeStreamResponse.FromString,
        )

    def begin(
        self, request: Message, *, needs_leader: bool = False, token: str | None = None
    ) -> Callable[[], Message | Failed]:
        metadata = [("hasleader", "true")] if needs_leader else []
        if token is not None:
            metadata.append(("token", token))
        future = self._calls[type(request).__name__].future(request, timeout=20, metadata=metadata)

        def answer() -> Message | Failed:
            try:
                return future.result()  # type: ignore[no-any-return]
            except grpc.RpcError as error:
                return Failed.of(error)

        return answer

    def catch_up(self) -> None:
        """Wait until this node has everything that was acknowledged by any."""
        self.begin(kv.RangeRequest(key=b"level"))()

    def range_stream(self, request: kv.RangeRequest) -> kv.RangeResponse | Failed:
        merged = kv.RangeResponse()
        try:
            for chunk in self._range_stream(request, timeout=20):
                merged.MergeFrom(chunk.range_response)
        except grpc.RpcError as error:
            return Failed.of(error)
        return merged

    def stream(self, path: str, answer: Any, *, limited: bool, token: str | None = None) -> Stream:
        channel = self._limited if limited else self._channel
        method: Any = channel.stream_stream(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return Stream(method if token is None else partial(method, metadata=[("token", token)]))

    def close(self) -> None:
        self._channel.close()
        self._limited.close()
