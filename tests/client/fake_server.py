"""A cluster of fake members over one state, faithful to the session, watch and lease protocols.

Faults happen where a test says: a member can be stopped, frozen, or made to drop a stream at one
of its points. What was executed, and how often, is recorded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf.message import Message

from connect_kv.rpc.cluster_pb2 import Member, MemberListRequest, MemberListResponse
from connect_kv.rpc.command_pb2 import Command, Failure, Result
from connect_kv.rpc.kv_pb2 import (
    DeleteRangeResponse,
    Event,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
)
from connect_kv.rpc.lease_pb2 import (
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
)
from connect_kv.rpc.maintenance_pb2 import StatusRequest, StatusResponse
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.rpc.watch_pb2 import WatchRequest, WatchResponse

Context = grpc.aio.ServicerContext[Message, Message]
Fault = Callable[[str], bool]
"""Asked at each point of a stream, by the point's name; True drops the stream there."""


@dataclass
class FakeSession:
    ttl: int
    replies: dict[int, Result] = field(default_factory=dict)
    floor: int = 1


class FakeCluster:
    """The replicated state, and what happened to it."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.values: dict[bytes, KeyValue] = {}
        self.history: list[Event] = []
        self.sessions: dict[int, FakeSession] = {}
        self.opened = 0
        self.leases: dict[int, int] = {}
        self.renewals: Counter[int] = Counter()
        self.executed: Counter[bytes] = Counter()
        """How often a put of each key was executed."""
        self.batches: list[int] = []
        self.changed = asyncio.Condition()
        self.refuse: Callable[[Command], Failure | None] = lambda command: None
        """Decides, before anything else, to answer a command with a failure instead."""

    def expire_sessions(self) -> None:
        self.sessions.clear()

    async def execute(self, session: int, command: Command) -> Result:
        if failure := self.refuse(command):
            return Result(number=command.number, failure=failure)
        if command.WhichOneof("request") == "range":
            return Result(number=command.number, range=self.range(command.range))
        known = self.sessions.get(session)
        if known is None:
            gone = Failure(code=9, message="session expired", type="SessionExpired")
            return Result(number=command.number, failure=gone)
        if command.number in known.replies:
            return known.replies[command.number]
        if command.number < known.floor:
            return Result(number=command.number, failure=Failure(code=2, message="below the floor"))
        result = await self.run(command)
        result.number = command.number
        known.replies[command.number] = result
        return result

    def acknowledge(self, session: int, floor: int) -> None:
        if known := self.sessions.get(session):
            assert floor >= known.floor
            known.floor = floor
            for number in [number for number in known.replies if number < floor]:
                del known.replies[number]

    async def run(self, command: Command) -> Result:
        match command.WhichOneof("request"):
            case "put":
                return Result(put=await self.put(command.put))
            case "delete_range":
                gone = self.values.pop(command.delete_range.key, None)
                return Result(delete_range=DeleteRangeResponse(deleted=int(gone is not None)))
            case "lease_grant":
                id = command.lease_grant.ID or 1000 + len(self.leases)
                self.leases[id] = command.lease_grant.TTL
                return Result(lease_grant=LeaseGrantResponse(ID=id, TTL=command.lease_grant.TTL))
            case "lease_revoke":
                self.leases.pop(command.lease_revoke.ID, None)
                return Result(lease_revoke=LeaseRevokeResponse())
            case "machine_call":
                raise NotImplementedError
            case "session_close":
                result = Result()
                result.session_close.SetInParent()
                return result
            case other:
                return Result(failure=Failure(code=12, message=f"unimplemented: {other}"))

    async def put(self, request: PutRequest) -> PutResponse:
        async with self.changed:
            self.executed[request.key] += 1
            self.revision += 1
            before = self.values.get(request.key)
            kv = KeyValue(
                key=request.key,
                value=request.value,
                mod_revision=self.revision,
                create_revision=before.create_revision if before else self.revision,
                version=before.version + 1 if before else 1,
            )
            self.values[request.key] = kv
            self.history.append(Event(type=Event.PUT, kv=kv))
            self.changed.notify_all()
        return PutResponse(header=self.header())

    def range(self, request: RangeRequest) -> RangeResponse:
        if not request.range_end:
            found = [self.values[request.key]] if request.key in self.values else []
        else:
            found = [
                self.values[key] for key in sorted(self.values) if request.key <= key < request.range_end
            ]
        return RangeResponse(header=self.header(), kvs=found, count=len(found))

    def header(self) -> ResponseHeader:
        return ResponseHeader(cluster_id=1, member_id=1, revision=self.revision, raft_term=1)


class FakeMember:
    """One member: a gRPC server over the shared state."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.window = 4096
        self.fault: Fault = lambda point: False
        self._awake = asyncio.Event()
        self._awake.set()
        self.calls: Counter[str] = Counter()
        self.asked = asyncio.Event()
        """A call has come."""
        self.port = 0
        self.status: StatusResponse | None = None
        self.refusal = ""
        """The text with which `fault` ends a stream."""
        self.unary_failure: tuple[grpc.StatusCode, str] | None = None
        self._server: grpc.aio.Server | None = None
        self._listening: list[asyncio.Future[None]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers(self._handlers())
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
            for one in self._listening:
                one.cancel()
            await asyncio.gather(*self._listening, return_exceptions=True)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        def unary(
            handler: Callable[[Message], Awaitable[Message]], request: type[Message]
        ) -> grpc.RpcMethodHandler[Message, Message]:
            async def serve(message: Message, context: Context) -> Message:
                self.calls[request.__name__] += 1
                self.asked.set()
                if self.status is not None and request is StatusRequest:
                    return self.status  # also while all else waits
                await self._pause()
                if self.unary_failure is not None:
                    await context.abort(*self.unary_failure)
                answer = await handler(message)
                if self.fault("answered"):
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "dropped")
                return answer

            return grpc.unary_unary_rpc_method_handler(
                serve,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )

        def streams(
            handler: Callable[[AsyncIterator[Message], Context], AsyncIterator[Message]],
            request: type[Message],
        ) -> grpc.RpcMethodHandler[Message, Message]:
            return grpc.stream_stream_rpc_method_handler(
                handler,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )

        return (
            grpc.method_handlers_generic_handler(
                "connect_kv.v1.Session", {"Open": streams(self._session, SessionRequests)}
            ),
            grpc.method_handlers_generic_handler(
                "connect_kv.v1.Watch", {"Watch": streams(self._watch, WatchRequest)}
            ),
            grpc.method_handlers_generic_handler(
                "connect_kv.v1.Lease", {"LeaseKeepAlive": streams(self._keep_alive, LeaseKeepAliveRequest)}
            ),
            grpc.method_handlers_generic_handler(
                "connect_kv.v1.KV",
                {"Put": unary(self._put, PutRequest), "Range": unary(self._range, RangeRequest)},
            ),
            grpc.method_handlers_generic_handler(
                "connect_kv.v1.Maintenance", {"Status": unary(self._status, StatusRequest)}
            ),
            grpc.method_handlers_generic_handler(
                "connect_kv.v1.Cluster", {"MemberList": unary(self._members, MemberListRequest)}
            ),
        )

    def freeze(self) -> None:
        """Accept streams and calls, and answer nothing until `thaw`."""
        self._awake.clear()

    def thaw(self) -> None:
        self._awake.set()

    async def _pause(self) -> None:
        await self._awake.wait()

    async def _drop(self, point: str, context: Context) -> None:
        if self.fault(point):
            await context.abort(grpc.StatusCode.UNAVAILABLE, self.refusal or f"dropped: {point}")

    async def _session(self, requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        cluster = self.cluster
        first = await anext(requests)
        assert isinstance(first, SessionRequests)
        assert not first.commands
        await self._pause()
        await self._drop("head", context)
        session = first.session
        if session and session not in cluster.sessions:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "session has expired",
                (("connect-kv-error-type", "SessionExpired"),),
            )
        if not session:
            cluster.opened += 1
            session = 100 + cluster.opened
            cluster.sessions[session] = FakeSession(first.ttl)
        await self._drop("opened", context)
        yield SessionReplies(session=session, window=self.window, ttl=first.ttl)
        async for batch in requests:
            assert isinstance(batch, SessionRequests)
            assert batch.session == session
            assert 0 < len(batch.commands) <= self.window
            cluster.batches.append(len(batch.commands))
            await self._pause()
            await self._drop("received", context)
            cluster.acknowledge(session, batch.floor)
            results = []
            for command in batch.commands:
                results.append(await cluster.execute(session, command))
                await self._drop("executed", context)
            yield SessionReplies(results=results[: len(results) // 2])
            await self._drop("half answered", context)
            yield SessionReplies(results=results[len(results) // 2 :])
            await self._drop("answered", context)

    async def _watch(self, requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        cluster = self.cluster
        request = await anext(requests)
        assert isinstance(request, WatchRequest)
        create = request.create_request
        await self._pause()
        await self._drop("head", context)
        yield WatchResponse(header=cluster.header(), created=True)
        position = create.start_revision or cluster.revision + 1
        if position < cluster.compacted:
            yield WatchResponse(canceled=True, compact_revision=cluster.compacted)
            await asyncio.Event().wait()
        asked = 0

        async def listen() -> None:
            nonlocal asked
            async for later in requests:
                assert isinstance(later, WatchRequest)
                async with cluster.changed:
                    asked += later.HasField("progress_request")
                    cluster.changed.notify_all()

        self._listening.append(asyncio.ensure_future(listen()))
        while True:
            events = [event for event in cluster.history if event.kv.mod_revision >= position]
            if events:
                event = events[0]
                position = event.kv.mod_revision + 1
                await self._drop("before event", context)
                yield WatchResponse(header=cluster.header(), events=[event])
                await self._drop("after event", context)
                continue
            if asked:
                asked -= 1
                yield WatchResponse(header=cluster.header(), watch_id=-1)
                continue
            async with cluster.changed:
                while not asked and not any(e.kv.mod_revision >= position for e in cluster.history):
                    await cluster.changed.wait()

    async def _keep_alive(self, requests: AsyncIterator[Message], context: Context) -> AsyncIterator[Message]:
        async for request in requests:
            assert isinstance(request, LeaseKeepAliveRequest)
            await self._pause()
            await self._drop("renewal", context)
            async with self.cluster.changed:
                self.cluster.renewals[request.ID] += 1
                self.cluster.changed.notify_all()
            yield LeaseKeepAliveResponse(ID=request.ID, TTL=self.cluster.leases.get(request.ID, 0))

    async def _put(self, request: Message) -> Message:
        assert isinstance(request, PutRequest)
        return await self.cluster.put(request)

    async def _range(self, request: Message) -> Message:
        assert isinstance(request, RangeRequest)
        return self.cluster.range(request)

    async def _status(self, request: Message) -> Message:
        return StatusResponse(
            header=self.cluster.header(), version="3.6.0", leader=1, raftIndex=7, raftTerm=1
        )

    async def _members(self, request: Message) -> Message:
        return MemberListResponse(members=[Member(ID=1, name="n1", clientURLs=[f"http://{self.address}"])])


def once(point: str) -> Fault:
    """A fault that strikes the first time a stream comes to that point."""
    return every(point, 1, limit=1)


def every(point: str, count: int, *, limit: int = 1 << 30) -> Fault:
    """A fault that strikes each `count`-th time, at most `limit` times."""
    seen = 0
    struck = 0

    def strike(at: str) -> bool:
        nonlocal seen, struck
        if at != point or struck >= limit:
            return False
        seen += 1
        if seen % count:
            return False
        struck += 1
        return True

    return strike
