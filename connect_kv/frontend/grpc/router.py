"""From the full name of a method to who carries it out: one table for every server and every wire.

A service is a plain object with one method per RPC, named as in the .proto:

- unary: ``async def Put(self, request, caller) -> response``
- server stream: ``def RangeStream(self, request, caller) -> AsyncIterator[response]``
- bidirectional: ``async def Watch(self, channel) -> None``, which uses ``channel.read/write``

A response may be a message or its bytes. A service may have a table `many` (`services.asked.Many`):
what its unary methods answer where many calls come together. A service raises what `connect_kv.errors` has;
here that becomes a `Status`, which a server puts on its wire. An RPC that a service does not have answers
UNIMPLEMENTED by name, one that nobody knows in etcd's words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, NoReturn

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from connect_kv import tracing
from connect_kv.auth.authenticator import CallCredentials
from connect_kv.errors import NoLeader, Overloaded
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.frontend.grpc.batches import Batch, Known
from connect_kv.frontend.grpc.calls import Metadata, RpcFailed, UnaryCall, Wire
from connect_kv.frontend.grpc.undecodable import undecodable
from connect_kv.metrics import Metrics
from connect_kv.services.audit import Audit
from connect_kv.services.caller import Caller
from connect_kv.services.opening import Opening
from connect_kv.services.status import Status, status_of
from connect_kv.services.streams import Streams
from connect_kv.tracing import SpanKind, Tracer

__all__ = ["CallKind", "Metadata", "MethodRoute", "Router", "RpcFailed", "UnaryCall", "Wire"]

logger = logging.getLogger(__name__)

CERTIFICATE_NAME = ":certificate-name"
"""A field that a server adds: the CommonName of the client's certificate, which was verified. A server
takes it from no client: HTTP/2 refuses names of that form but its own (RFC 9113, section 8.3)."""
PEER_ADDRESS = ":peer-address"
"""Another such field: where the call comes from, ``host:port``. On routes that are `addressed`."""

ETCD_NAMES = {
    "KV": "etcdserverpb.KV",
    "Watch": "etcdserverpb.Watch",
    "Lease": "etcdserverpb.Lease",
    "Cluster": "etcdserverpb.Cluster",
    "Maintenance": "etcdserverpb.Maintenance",
    "Lock": "v3lockpb.Lock",
    "Election": "v3electionpb.Election",
    "Auth": "etcdserverpb.Auth",
}
"""Our services that answer under a second name, which existing etcd clients call."""

NOT_FOR_LEARNER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner")

_LEARNERS: dict[str, Callable[[Any], bool]] = {
    "Maintenance.Status": lambda request: True,
    "Maintenance.Snapshot": lambda request: True,
    "Dashboard.Overview": lambda request: True,
    "Dashboard.History": lambda request: True,
    "KV.Range": lambda request: bool(request.serializable),
}
"""What a learner answers, as in etcd, and what the dashboard shows of it."""

_BEFORE_OPENING = frozenset({"Maintenance.Status", "Dashboard.Overview", "Dashboard.History"})
"""What is answered by a member that the cluster does not know by name yet."""

_ADDRESSED = frozenset({"Auth.Authenticate"})
"""What depends on where it comes from."""

_WAITING = frozenset({"Lock.Lock", "Election.Campaign"})
"""Unary calls that last until somebody else calls."""

_ALWAYS_TAKEN = frozenset({"Maintenance", "Cluster", "Health", "Dashboard"})
"""Services whose calls are few, and needed where something is wrong."""


UNKNOWN_VERSION = "unknown"
"""Of the API, where a client names none."""


class CallKind(Enum):
    """How many messages go each way; the values are those of the metrics' label ``grpc_type``."""

    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRoute:
    """One method under one of its names. Both ways of serving raise RpcFailed."""

    service: str
    method: str
    kind: CallKind
    unary: Callable[[bytes, Metadata], Awaitable[bytes]]
    """For UNARY: the encoded request in, the encoded response out."""
    stream: Callable[[Wire], Awaitable[None]]
    """For the other kinds: serve it to its end."""
    overloaded: Callable[[str], RpcFailed] | None
    """Refuses a call from that address unread, for a member with more calls than it can serve; None: it never
    is."""
    batch: Callable[[Sequence[UnaryCall]], None] | None = None
    """For a UNARY method that has this form: takes all calls that came in one turn of the loop, and answers
    each of them once, then or later, as `unary` would. It neither waits nor raises."""
    waits: bool = False
    """Whether a unary call may wait for others' calls, for ever: it must keep nobody from being served."""
    addressed: bool = False
    """Whether a server should add `PEER_ADDRESS` to the metadata; what is not asked for costs nothing."""


_ANYBODY, _NEEDS_LEADER = Caller(), Caller(needs_leader=True)
"""All that a caller can be so far: made once, not for each call."""


class Router:
    """Every method that clients can call."""

    def __init__(
        self,
        streams: Streams,
        metrics: Metrics,
        has_leader: Callable[[], bool],
        is_learner: Callable[[], bool] = lambda: False,
        opening: Opening | None = None,
        ready: Callable[[Caller], Awaitable[None] | None] = lambda caller: None,
        audit: Audit | None = None,
        share: Callable[[Caller], AbstractContextManager[None]] = lambda caller: nullcontext(),
        now: Callable[[], float] = time.monotonic,
        tracer: Tracer | None = None,
    ) -> None:
        """A learner answers only what needs no agreement; clients go to another member for the rest.

        Until `opening` is open, calls wait, but those that ask how this member is. `ready` gives what a
        caller has to wait for until it can be known who that is, if anything. `audit` is told of every call.
        `share` is around each stream of a caller; it may raise Refused. `now`: seconds, on a clock that
        tells how long the loop is held.
        """
        self._audit = audit
        self._share = share
        self._now = now
        self._tracer = tracer
        self._batches: list[Batch] = []
        self._ready = ready
        self._opening = opening or Opening.at_once()
        self._is_learner = is_learner
        self._streams = streams
        self._metrics = metrics
        self._has_leader = has_leader
        self._table: dict[str, MethodRoute] = {}
        self._services: set[str] = set()

    def route(self, path: str) -> MethodRoute:
        """Who serves ``/package.Service/Method``; if nobody, who says so."""
        return self._table.get(path) or self._unknown(path)

    @property
    def routes(self) -> Mapping[str, MethodRoute]:
        """Every method by its path, for a server that wants to know them beforehand."""
        return self._table

    def serves(self, path: str) -> bool:
        """Whether there is such a method, so that its route stays the same."""
        return path in self._table

    def add(
        self,
        service: ServiceDescriptor,
        servicer: object,
        *,
        names: Sequence[str] = (),
        always: bool = False,
        learners: bool = True,
    ) -> None:
        """Serve a service's methods under its own name and, if it has one, etcd's; or under `names`.

        `always`: whatever state this member is in, without a leader, and while it stops; also as a learner,
        unless `learners` says no.
        """
        etcd = ETCD_NAMES.get(service.name)
        for name in names or (service.full_name, *((etcd,) if etcd else ())):
            self._services.add(name)
            for method in service.methods:
                call = getattr(servicer, method.name, None)
                if call is None:
                    self._table[f"/{name}/{method.name}"] = _unimplemented(name, method.name)
                    continue
                guard = _open if always and learners else self._guard(method)
                streams = None if always else self._streams
                at_once = always or f"{service.name}.{method.name}" in _BEFORE_OPENING
                opening = Opening.at_once() if at_once else self._opening
                surrounded = _Method(
                    self._easy,
                    guard,
                    opening,
                    self._ready,
                    streams,
                    self._share,
                    self._metrics,
                    name,
                    method,
                    call,
                    self._audit,
                    self._tracer,
                )
                batch = None
                if (many := getattr(servicer, "many", {}).get(method.name)) is not None:
                    batch = Batch(surrounded, many, self._now)
                    self._batches.append(batch)
                self._table[f"/{name}/{method.name}"] = surrounded.route(batch)

    async def close(self) -> None:
        """End the calls that have a task of the router's; once no server gives it any more."""
        for batch in self._batches:
            await batch.close()

    def _unknown(self, path: str) -> MethodRoute:
        service, slash, method = path.removeprefix("/").rpartition("/")
        if not slash:
            return _answering(service, method, f'malformed method name: "{path}"')
        if service in self._services:
            return _answering(service, method, f"unknown method {method} for service {service}")
        return _answering(service, method, f"unknown service {service}")

    def _easy(self) -> bool:
        """Whether no guard refuses anything now."""
        return self._has_leader() and not self._is_learner()

    def _guard(self, method: MethodDescriptor) -> Callable[[Any, Caller], None]:
        """Raises for a call that this member cannot carry out now, whatever it asks for."""
        name = method.full_name.removeprefix(f"{method.containing_service.file.package}.")
        allowed = _LEARNERS.get(name)
        unary = not method.client_streaming and not method.server_streaming

        def guard(request: Any, caller: Caller) -> None:
            if self._is_learner() and not (allowed is not None and allowed(request)):
                raise NOT_FOR_LEARNER.error()
            # A stream is refused by its scope (`Streams`), which also ends it when the leader goes.
            if unary and caller.needs_leader and not self._has_leader():
                raise NoLeader

        return guard


class _Method:
    """What surrounds one method of a service: decoding, counting, errors."""

    def __init__(
        self,
        easy: Callable[[], bool],
        guard: Callable[[Any, Caller], None],
        opening: Opening,
        ready: Callable[[Caller], Awaitable[None] | None],
        streams: Streams | None,
        share: Callable[[Caller], AbstractContextManager[None]],
        metrics: Metrics,
        service: str,
        method: MethodDescriptor,
        call: Any,
        audit: Audit | None,
        tracer: Tracer | None,
    ) -> None:
        self.audit = audit
        self._tracer = tracer
        self._name = f"{method.containing_service.name}.{method.name}"
        self._easy = easy
        self._guard = guard
        self._opening = opening
        self._ready = ready
        self._streams = streams
        self._share = share
        self._method = method
        self._call = call
        self._parse: Callable[[bytes], Any] = GetMessageClass(method.input_type).FromString
        self._kind = CallKind.SERVER_STREAM if method.server_streaming else CallKind.UNARY
        if method.client_streaming:
            self._kind = CallKind.BIDI_STREAM
        self.count = metrics.call(service, method.name, self._kind.value)
        self.requests = metrics.unary_requests if self._kind is CallKind.UNARY else metrics.stream_requests

    def route(self, batch: Batch | None) -> MethodRoute:
        """How a server finds it; `batch` takes calls that come together, if there is such a form."""
        refusable = self._kind is CallKind.UNARY and self._method.containing_service.name not in _ALWAYS_TAKEN
        return MethodRoute(
            service=self.count.service,
            method=self.count.method,
            kind=self._kind,
            unary=self._unary,
            stream=self._bidirectional if self._kind is CallKind.BIDI_STREAM else self._server_stream,
            overloaded=self._overloaded if refusable else None,
            waits=self._name in _WAITING,
            addressed=self.audit is not None or self._name in _ADDRESSED,
            batch=None if batch is None else batch.take,
        )

    async def _unary(self, data: bytes, metadata: Metadata) -> bytes:
        self.count.started += 1
        request, caller = None, _ANYBODY
        try:
            caller = self.caller(metadata)
            request = self.decode(data)
            response = await self.carry_out(request, caller)
        except BaseException as error:
            self._fail(error, caller, request)
        self.succeeded(caller, request)
        return self.encode(response)

    async def carry_out(self, request: Any, caller: Caller) -> Message | bytes:
        """A unary call, once it is decoded."""
        if self._tracer is not None and caller.trace:
            return await self._traced(self._tracer, request, caller)
        return await self._carried_out(request, caller)

    async def _traced(self, tracer: Tracer, request: Any, caller: Caller) -> Message | bytes:
        """With a span around it, by OpenTelemetry's conventions for RPC servers."""
        service, method = self.count.service, self.count.method
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        span = tracer.begin(f"{service}/{method}", caller.trace, SpanKind.SERVER, about)
        code, error = Code.CANCELLED, "cancelled"
        try:
            with tracing.carried(span.traceparent):
                response = await self._carried_out(request, caller)
            code, error = Code.OK, ""
            return response
        except Exception as failure:
            status = status_of(failure)
            code, error = status.code, status.text
            raise
        finally:
            span.end({"rpc.grpc.status_code": code.value}, error)

    async def _carried_out(self, request: Any, caller: Caller) -> Message | bytes:
        self._guard(request, caller)
        if not self._opening.is_open:
            await self._wait(request, caller)
        if (waiting := self._ready(caller)) is not None:
            await waiting
        response: Message | bytes = await self._call(request, caller)
        return response

    def free(self) -> bool:
        """Whether nobody is refused now, whatever the call, nor has to wait: but whose login may be late."""
        return self._opening.is_open and self._easy()

    def admit(self, request: Any, caller: Caller) -> bool:
        """Raises what such a call is refused with; whether it has to wait for nothing before it is asked."""
        self._guard(request, caller)
        if caller.trace or not self._opening.is_open:
            return False
        if (waiting := self._ready(caller)) is not None:
            if isinstance(waiting, Coroutine):
                waiting.close()
            return False
        return True

    async def _server_stream(self, wire: Wire) -> None:
        self.count.started += 1
        request, caller = None, _ANYBODY
        try:
            caller = self.caller(wire.metadata)
            data = await wire.read()
            if data is None:
                raise Refusal(Code.INTERNAL, "a request is missing").error()
            request = self.decode(data)
            self._guard(request, caller)
            async with self._scope(caller):
                if not self._opening.is_open:
                    await self._wait(request, caller)
                if (waiting := self._ready(caller)) is not None:
                    await waiting
                with self._share(caller):
                    async with _closed_after(self._call(request, caller)) as responses:
                        async for response in responses:
                            await wire.write(self.encode(response))
        except BaseException as error:
            self._fail(error, caller, request)
        self.succeeded(caller, request)

    async def _bidirectional(self, wire: Wire) -> None:
        self.count.started += 1
        channel = _Channel(self, wire)
        try:
            self._guard(None, channel.caller)
            async with self._scope(channel.caller):
                if not self._opening.is_open:
                    await self._wait(None, channel.caller)
                if (waiting := self._ready(channel.caller)) is not None:
                    await waiting
                with self._share(channel.caller):
                    await self._call(channel)
        except BaseException as error:
            self._fail(error, channel.caller, None)
        self.succeeded(channel.caller, None)

    async def _wait(self, request: Any, caller: Caller) -> None:
        """Until this member serves; it may have learned meanwhile that it is a learner."""
        await self._opening.wait()
        self._guard(request, caller)

    def _scope(self, caller: Caller) -> AbstractAsyncContextManager[None]:
        return (
            nullcontext() if self._streams is None else self._streams.scope(needs_leader=caller.needs_leader)
        )

    def caller(self, metadata: Metadata) -> Caller:
        """Who calls, who is counted too."""
        known = self.known(metadata)
        self.requests.of(known.version).times += 1
        return known.caller

    def known(self, metadata: Metadata) -> Known:
        """Who calls, and what of that is counted."""
        needs_leader, version = False, UNKNOWN_VERSION
        token = authorization = certificate = None
        through_gateway, address, trace = False, "", ""
        for key, value in metadata:
            if key == "hasleader":
                needs_leader = True
            elif key == "token":
                token = value if token is None else token
            elif key == "authorization":
                authorization = value if authorization is None else authorization
            elif key == CERTIFICATE_NAME:
                certificate = str(value) or None
            elif key == PEER_ADDRESS:
                address = str(value)
            elif key == "grpcgateway-accept":
                through_gateway = True
            elif key == "client-api-version" and isinstance(value, str):
                version = value
            elif key == tracing.HEADER and self._tracer is not None:
                trace = value if isinstance(value, str) and tracing.sampled(value) else ""
        if token is None:  # even an empty one counts before the other
            token = authorization
        if through_gateway:  # the certificate is the gateway's: it would lend its rights to anybody
            certificate = None
        if token is None and certificate is None:
            if address or trace:
                return Known(Caller(needs_leader=needs_leader, address=address, trace=trace), version)
            return Known(_NEEDS_LEADER if needs_leader else _ANYBODY, version)
        if token and len(token) <= 2048 and not (certificate or needs_leader or address or trace):
            return Known(_with_token(token), version)
        shown = CallCredentials(token=None if token is None else _bare(token), certificate=certificate)
        caller = Caller(credentials=shown, needs_leader=needs_leader, address=address, trace=trace)
        return Known(caller, version)

    def decode(self, data: bytes) -> Any:
        """A request, which is counted. Raises Refused."""
        self.count.received += 1
        self.count.received_bytes += len(data)
        return self.parse(data)

    def parse(self, data: bytes) -> Any:
        """A request without what this version does not know of it. Raises Refused.

        That would go into the log with the rest. Members of a newer version would do what it says and others
        not; and nested deep enough, nobody could read the entry, for it holds the request one message deeper.
        """
        try:
            request = self._parse(data)
        except DecodeError:
            raise undecodable(data, streamed=self._kind is not CallKind.UNARY) from None
        request.DiscardUnknownFields()
        return request

    def encode(self, response: Message | bytes) -> bytes:
        """A response, which is counted; one that is encoded already, such as a large range, stays."""
        data = response if isinstance(response, bytes) else response.SerializeToString()
        self.count.sent += 1
        self.count.sent_bytes += len(data)
        return data

    def succeeded(self, caller: Caller, request: Message | None) -> None:
        """A call has ended well."""
        self.count.ok += 1
        if self.audit is not None:
            self.audit.ended(caller, self._name, request, None)

    def cancelled(self, caller: Caller, request: Message | None) -> None:
        """Nobody waits for its answer any more."""
        self.count.fail(Code.CANCELLED.name)
        if self.audit is not None:
            self.audit.ended(caller, self._name, request, asyncio.CancelledError())

    def failed(self, error: Exception, caller: Caller, request: Message | None) -> RpcFailed:
        """What its caller is told; counted, and logged if nobody thought of it."""
        if self.audit is not None:
            self.audit.ended(caller, self._name, request, error)
        status, count = status_of(error), self.count
        count.fail(status.code.name)
        if not status.expected:
            logger.error("call failed", exc_info=error, extra={"method": f"{count.service}/{count.method}"})
        return RpcFailed(status)

    def _fail(self, error: BaseException, caller: Caller, request: Message | None) -> NoReturn:
        """Raise RpcFailed for `error`; what is no error of the call passes as it is."""
        inner = error
        while isinstance(inner, BaseExceptionGroup):
            inner = inner.exceptions[0]
        if isinstance(inner, asyncio.CancelledError):
            self.cancelled(caller, request)
            raise inner
        if not isinstance(inner, Exception):
            raise inner
        raise self.failed(inner, caller, request) from inner

    def _overloaded(self, address: str) -> RpcFailed:
        """Reads nothing: what a refusal costs is what it spares the member."""
        status = status_of(Overloaded("too many calls wait to be taken"))
        if self.audit is not None:
            self.audit.limited(address, self._name, status.code, status.text)
        self.count.started += 1
        self.count.fail(status.code.name)
        return RpcFailed(status)


class _Channel:
    """A `services.caller.RequestStream` over the wire of some server."""

    def __init__(self, method: _Method, wire: Wire) -> None:
        self._method = method
        self._wire = wire
        self.caller = method.caller(wire.metadata)

    async def read(self) -> Any:
        """The next request."""
        data = await self._wire.read()
        return None if data is None else self._method.decode(data)

    async def write(self, response: Message | bytes) -> None:
        """Send a response of the stream."""
        await self._wire.write(self._method.encode(response))


@lru_cache(1024)
def _with_token(token: str | bytes) -> Caller:
    """Who calls with nothing but a token: the same ones come again and again."""
    return Caller(credentials=CallCredentials(token=_bare(token)))


def _bare(token: str | bytes) -> str:
    """Without what HTTP clients write before it."""
    text = token if isinstance(token, str) else token.decode("latin-1")
    return text.removeprefix("Bearer ")


def _open(request: Any, caller: Caller) -> None:
    """The guard of what is always answered."""


@asynccontextmanager
async def _closed_after(responses: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """A stream that is broken off gives back what it holds at once."""
    try:
        yield responses
    finally:
        if isinstance(responses, AsyncGenerator):
            await responses.aclose()


def _unimplemented(service: str, method: str) -> MethodRoute:
    """For a method that exists, but not in this server."""
    return _answering(service, method, f"connect-kv: {service}/{method} is not implemented")


def _answering(service: str, method: str, text: str) -> MethodRoute:
    """UNIMPLEMENTED, for any kind of call: it reads nothing, so it needs to know no message."""

    async def unary(data: bytes, metadata: Metadata) -> bytes:
        raise RpcFailed(Status(Code.UNIMPLEMENTED, text))

    async def stream(wire: Wire) -> None:
        raise RpcFailed(Status(Code.UNIMPLEMENTED, text))

    return MethodRoute(
        service=service, method=method, kind=CallKind.BIDI_STREAM, unary=unary, stream=stream, overloaded=None
    )
