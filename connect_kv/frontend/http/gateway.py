"""The JSON gateway: requests of HTTP carried to the router's methods, answers and streams carried back.

As etcd's gateway does it (grpc-gateway 2), without a connection to itself. Paths: `paths`; JSON:
`connect_kv.json_mapping`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import CallKind, MethodRoute, Router, RpcFailed
from connect_kv.frontend.http.connection import Take
from connect_kv.frontend.http.errors import refuse
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.large import ANSWER, LARGE, in_pieces
from connect_kv.frontend.http.limits import Limited, nobody_is_told
from connect_kv.frontend.http.lines import LineStream, larger
from connect_kv.frontend.http.metadata import TOO_SHORT, metadata_of
from connect_kv.frontend.http.paths import OURS, Target, name_of, targets
from connect_kv.frontend.http.together import Gathering, Together
from connect_kv.json_mapping.decoding import BadJson, decode, readable
from connect_kv.json_mapping.encoding import encode
from connect_kv.json_mapping.syntax import BLANKS
from connect_kv.services.status import Status

Page = Callable[[Exchange], Awaitable[None]]

_DEADLINE = Status(Code.DEADLINE_EXCEEDED, "context deadline exceeded")


class Gateway:
    """Every path of etcd's gateway, and for every method ``/connect_kv/v1/service/method``."""

    def __init__(
        self, router: Router, *, most_message: int, most_body: int, limited: Limited | None = None
    ) -> None:
        """`most_message`: bytes of an encoded request; `most_body`: of its JSON. `limited` is told of what is
        refused because it is too much, before the router has seen it.
        """
        self._limited = limited or nobody_is_told
        self._router = router
        self._most_message = most_message
        self._most_body = most_body

    def pages(self) -> Mapping[str, Page]:
        """Who serves each path."""
        return {path: self._page(target) for path, target in targets().items()}

    def direct(self) -> Mapping[bytes, Take]:
        """By path as it is sent: methods whose calls are carried out together and without a task each."""
        gathering = Gathering(self._most_message, self._refused)
        found: dict[bytes, Take] = {}
        for path, target in targets().items():
            route = self._router.route(target.route)
            if route.kind is CallKind.UNARY and route.batch is not None:
                found[path.encode()] = partial(gathering.take, Together(target, route))
        return found

    def _page(self, target: Target) -> Page:
        route = self._router.route(target.route)
        if route.kind is CallKind.UNARY:
            return partial(self._unary, _Call(target, route))
        return partial(self._stream, target, route)

    async def missing(self, exchange: Exchange) -> None:
        """Below a prefix of the gateway, but no method's path."""
        refuse(exchange, Code.NOT_FOUND, "Not Found")

    def is_below(self, path: str) -> bool:
        """Whether a path that leads nowhere is the gateway's to refuse."""
        return path.startswith(("/v3/", OURS))

    async def _unary(self, call: _Call, exchange: Exchange) -> None:
        if exchange.method != "POST":
            refuse(exchange, Code.UNIMPLEMENTED, "Method Not Allowed")
            return
        try:
            metadata, seconds = metadata_of(exchange.headers, exchange.peer if call.addressed else None)
            text = readable(await exchange.body.whole())
            data = b"" if not text or not text.strip(BLANKS) else decode(call.request, text)[0]
            if len(data) > self._most_message:
                raise larger(len(data), self._most_message)
            if seconds is None:
                answer = await call.route.unary(data, metadata)
            else:
                async with deadline(seconds):
                    answer = await call.route.unary(data, metadata)
        except (RpcFailed, Refused, BadJson, TooLarge, Crowded) as error:
            self._refuse(exchange, call.name, error)
            return
        message = call.response(answer)
        if len(answer) < LARGE:
            exchange.respond(200, ANSWER, encode(message).encode())
        else:
            await in_pieces(exchange, message)

    async def _stream(self, target: Target, route: MethodRoute, exchange: Exchange) -> None:
        if exchange.upgrade:
            from connect_kv.frontend.http.websocket import serve_websocket

            await serve_websocket(exchange, target, route, self._most_message, self._most_body)
            return
        if exchange.method != "POST":
            refuse(exchange, Code.UNIMPLEMENTED, "Method Not Allowed")
            return
        try:
            metadata, seconds = metadata_of(exchange.headers, exchange.peer if route.addressed else None)
            stream = LineStream(exchange, target.method, metadata, self._most_message, self._most_body)
            if not target.method.client_streaming:
                await stream.take_one()
        except (Refused, BadJson, TooLarge, Crowded) as error:
            self._refuse(exchange, name_of(target), error)
            return
        try:
            async with deadline(seconds):
                await route.stream(stream)
        except RpcFailed as failed:
            await stream.fail(failed.status)
        stream.end()

    def _refuse(self, exchange: Exchange, call: str, error: Exception) -> None:
        status = status_of_failed(error, self._most_body)
        if not isinstance(error, RpcFailed):  # those the router has told of
            self._refused(exchange, call, status)
        refuse(exchange, status.code, status.text)

    def _refused(self, exchange: Exchange, call: str, status: Status) -> None:
        if status.code is Code.RESOURCE_EXHAUSTED:
            self._limited(exchange.peer, call, status.code, status.text)


class _Call:
    """A unary method, ready to be called."""

    __slots__ = ("addressed", "name", "request", "response", "route")

    def __init__(self, target: Target, route: MethodRoute) -> None:
        self.name = name_of(target)
        self.route = route
        self.addressed = route.addressed
        self.request = target.method.input_type
        self.response: Callable[[bytes], Any] = GetMessageClass(target.method.output_type).FromString


@asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[None]:
    """Raises RpcFailed when the time of a call is up."""
    if seconds is not None and seconds < TOO_SHORT:
        raise RpcFailed(_DEADLINE)
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise RpcFailed(_DEADLINE) from None


def status_of_failed(error: Exception, most_body: int) -> Status:
    """What to say of a request that did not become an answer."""
    match error:
        case RpcFailed():
            return error.status
        case Refused():
            return Status(Code(error.code), error.message)
        case BadJson():
            return Status(Code.INVALID_ARGUMENT, str(error))
        case TooLarge():
            return Status(Code.RESOURCE_EXHAUSTED, f"connect-kv: a body is larger than {most_body} bytes")
        case _:
            return Status(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
