"""Registers servicers under our service names and etcd's, around every handler the same wrapper.

A servicer is a plain object with one method per RPC, named as in the .proto:

- unary: ``async def Put(self, request, context) -> response``
- server stream: ``def RangeStream(self, request, context) -> AsyncIterator[response]``
- bidirectional: ``async def Watch(self, context) -> None``, which uses ``context.read/write``

It raises what `connect_kv.errors` has; here that becomes a status. An RPC it does not have
answers UNIMPLEMENTED by name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from connect_kv.errors import NoLeader, Overloaded
from connect_kv.frontend.grpc.admission import Backlog
from connect_kv.frontend.grpc.streams import Streams
from connect_kv.kv.refusals import Refusal
from connect_kv.metrics import CallCount, Metrics
from connect_kv.services.status import status_of

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
"""What grpc hands a handler: read, write, metadata, abort."""

ETCD_NAMES = {
    "KV": "etcdserverpb.KV",
    "Watch": "etcdserverpb.Watch",
    "Lease": "etcdserverpb.Lease",
    "Cluster": "etcdserverpb.Cluster",
    "Maintenance": "etcdserverpb.Maintenance",
    "Lock": "v3lockpb.Lock",
    "Election": "v3electionpb.Election",
}
"""Our services that answer under a second name, which existing etcd clients call."""

AUTH_METHODS = (
    "AuthEnable", "AuthDisable", "AuthStatus", "Authenticate",
    "UserAdd", "UserGet", "UserList", "UserDelete", "UserChangePassword", "UserGrantRole", "UserRevokeRole",
    "RoleAdd", "RoleGet", "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
)  # fmt: skip
"""Of ``etcdserverpb.Auth``, which has no message of ours: each is refused by name."""

NOT_FOR_LEARNER = Refusal(9, "etcdserver: rpc not supported for learner")

_LEARNERS: dict[str, Callable[[Any], bool]] = {
    "Maintenance.Status": lambda request: True,
    "Maintenance.Snapshot": lambda request: True,
    "KV.Range": lambda request: bool(request.serializable),
}
"""What a learner answers, as in etcd."""


_ALWAYS_TAKEN = frozenset({"Maintenance", "Cluster"})
"""Services whose calls are few, and needed where something is wrong."""


class Handlers(grpc.GenericRpcHandler):
    """One table from full method name to handler, for all services of a server."""

    def __init__(
        self,
        streams: Streams,
        metrics: Metrics,
        has_leader: Callable[[], bool],
        is_learner: Callable[[], bool] = lambda: False,
    ) -> None:
        """A learner answers only what needs no agreement; clients go to another member for the rest."""
        self._is_learner = is_learner
        self._streams = streams
        self._metrics = metrics
        self._has_leader = has_leader
        self._table: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._refusals: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        """What takes the place of a handler while too many calls wait: of single calls only."""
        self._backlog: Backlog | None = None

    def refuse_beyond(self, backlog: Backlog) -> None:
        """Refuse single calls, unread, while `backlog` says so."""
        self._backlog = backlog

    def add(self, service: ServiceDescriptor, servicer: object) -> None:
        """Serve a servicer's methods under the service's own name and, if it has one, etcd's."""
        names = [service.full_name]
        if service.name in ETCD_NAMES:
            names.append(ETCD_NAMES[service.name])
        for name in names:
            for method in service.methods:
                self._table[f"/{name}/{method.name}"] = self._handler(name, method, servicer)

    def refuse(self, service: str, methods: Iterable[str]) -> None:
        """Answer UNIMPLEMENTED, naming the method, without knowing its messages."""
        for method in methods:
            self._table[f"/{service}/{method}"] = _unimplemented(service, method)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """What grpc asks for every call."""
        method = handler_call_details.method
        backlog = self._backlog
        if backlog is not None:
            backlog.taken += 1
            if backlog.excess and method in self._refusals:
                backlog.excess -= 1
                return self._refusals[method]
        return self._table.get(method)

    def _handler(
        self, service: str, method: MethodDescriptor, servicer: object
    ) -> grpc.RpcMethodHandler[Any, Any]:
        call = getattr(servicer, method.name, None)
        if call is None:
            return _unimplemented(service, method.name)
        learner = _LEARNERS.get(method.full_name.removeprefix(f"{method.containing_service.file.package}."))
        refused = self._refused_to_learners(learner)
        request: type[Message] = GetMessageClass(method.input_type)
        response: type[Message] = GetMessageClass(method.output_type)
        kind = "server_stream" if method.server_streaming else "unary"
        if method.client_streaming:
            kind = "bidi_stream"
        count = self._metrics.call(service, method.name, kind)
        codec = (_deserializer(request, count), _serializer(response, count))
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(self._bidirectional(call, count, refused), *codec)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._server_stream(call, count, refused), *codec)
        if method.containing_service.name not in _ALWAYS_TAKEN:
            self._refusals[f"/{service}/{method.name}"] = _overloaded(count)
        return grpc.unary_unary_rpc_method_handler(self._unary(call, count, refused), *codec)

    def _refused_to_learners(self, allowed: Callable[[Any], bool] | None) -> Callable[[Any], bool]:
        is_learner = self._is_learner
        return lambda request: is_learner() and not (allowed is not None and allowed(request))

    def _unary(
        self, call: Callable[[Any, Context], Awaitable[Any]], count: CallCount, refused: Callable[[Any], bool]
    ) -> Any:
        has_leader = self._has_leader

        async def handle(request: Any, context: Context) -> Any:
            count.started += 1
            try:
                if refused(request):
                    raise NOT_FOR_LEARNER.error()
                if not has_leader() and needs_leader(context):
                    raise NoLeader
                response = await call(request, context)
            except BaseException as error:
                await _fail(context, error, count)
            count.ok += 1
            return response

        return handle

    def _server_stream(
        self,
        call: Callable[[Any, Context], AsyncIterator[Any]],
        count: CallCount,
        refused: Callable[[Any], bool],
    ) -> Any:
        async def handle(request: Any, context: Context) -> None:
            count.started += 1
            try:
                if refused(request):
                    raise NOT_FOR_LEARNER.error()
                async with (
                    self._streams.scope(needs_leader=needs_leader(context)),
                    _closed_after(call(request, context)) as responses,
                ):
                    async for response in responses:
                        await context.write(response)
            except BaseException as error:
                await _fail(context, error, count)
            count.ok += 1

        return handle

    def _bidirectional(
        self, call: Callable[[Context], Awaitable[None]], count: CallCount, refused: Callable[[Any], bool]
    ) -> Any:
        async def handle(_: Any, context: Context) -> None:
            count.started += 1
            try:
                if refused(None):
                    raise NOT_FOR_LEARNER.error()
                async with self._streams.scope(needs_leader=needs_leader(context)):
                    await call(context)
            except BaseException as error:
                await _fail(context, error, count)
            count.ok += 1

        return handle


@asynccontextmanager
async def _closed_after(responses: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """A stream that is broken off gives back what it holds at once."""
    try:
        yield responses
    finally:
        if isinstance(responses, AsyncGenerator):
            await responses.aclose()


def _deserializer(request: type[Message], count: CallCount) -> Callable[[bytes], Any]:
    """Of requests, which are counted."""
    parse = request.FromString

    def from_bytes(data: bytes) -> Any:
        count.received += 1
        count.received_bytes += len(data)
        return parse(data)

    return from_bytes


def _serializer(response: type[Message], count: CallCount) -> Callable[[Any], bytes]:
    """Of responses, which are counted.

    A servicer may also give one that is serialized already, such as a large range.
    """
    serialize = response.SerializeToString

    def to_bytes(message: Any) -> bytes:
        data: bytes = message if type(message) is bytes else serialize(message)
        count.sent += 1
        count.sent_bytes += len(data)
        return data

    return to_bytes


def needs_leader(context: Context) -> bool:
    """Whether the caller asked to be refused while there is no leader."""
    return any(key == "hasleader" for key, _ in context.invocation_metadata() or ())


async def read(context: Context) -> Any:
    """The next message of a stream; None once the client has half-closed it."""
    message = await context.read()
    return None if message is grpc.aio.EOF else message


async def _fail(context: Context, error: BaseException, count: CallCount) -> NoReturn:
    """End the call with the status of `error`."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, asyncio.CancelledError):
        count.fail("CANCELLED")
        raise error
    if not isinstance(error, Exception):
        raise error
    status = status_of(error)
    count.fail(status.code.name)
    if not status.expected:
        logger.error("call failed", exc_info=error, extra={"method": f"{count.service}/{count.method}"})
    await context.abort(status.code, status.text, status.trailing)
    raise AssertionError("abort returned")


def _overloaded(count: CallCount) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler that reads nothing: what a refusal costs is what it spares the member."""
    status = status_of(Overloaded("too many calls wait to be taken"))

    async def handle(_: Any, context: Context) -> None:
        count.started += 1
        count.fail(status.code.name)
        await context.abort(status.code, status.text, status.trailing)

    return grpc.stream_stream_rpc_method_handler(handle)


def _unimplemented(service: str, method: str) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler for any kind of call: it reads nothing, so it needs to know no message."""
    text = f"connect-kv: {service}/{method} is not implemented"

    async def handle(_: Any, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    return grpc.stream_stream_rpc_method_handler(handle)
