"""Calls of the gateway that come in one turn of the loop: handed over together, as the gRPC door does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import Metadata, MethodRoute
from connect_kv.frontend.http.errors import refuse
from connect_kv.frontend.http.exchange import Exchange
from connect_kv.frontend.http.large import ANSWER, LARGE, in_pieces
from connect_kv.frontend.http.lines import larger
from connect_kv.frontend.http.metadata import metadata_of
from connect_kv.frontend.http.paths import Target, name_of
from connect_kv.json_mapping.decoding import BadJson, decode, readable
from connect_kv.json_mapping.encoding import encode
from connect_kv.json_mapping.syntax import BLANKS
from connect_kv.services.status import UNEXPECTED, Status

logger = logging.getLogger(__name__)


class Together:
    """A method whose calls are carried out together."""

    __slots__ = ("addressed", "batch", "kept", "name", "request", "response")

    def __init__(self, target: Target, route: MethodRoute) -> None:
        assert route.batch is not None
        self.name = name_of(target)
        self.batch = route.batch
        self.addressed = route.addressed
        self.request = target.method.input_type
        self.response: Callable[[bytes], Any] = GetMessageClass(target.method.output_type).FromString
        self.kept: object | None = None
        """The router's own, of calls without metadata."""


class _Call:
    """A `router.UnaryCall`."""

    __slots__ = ("_exchange", "_method", "kept", "message", "metadata")

    def __init__(self, exchange: Exchange, method: Together, message: bytes, metadata: Metadata) -> None:
        self._exchange = exchange
        self._method = method
        self.message = message
        self.metadata = metadata
        self.kept = None if metadata else method.kept

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._exchange.gone

    def reply(self, message: bytes) -> None:
        """The answer."""
        exchange, method = self._exchange, self._method
        if not self.metadata:
            method.kept = self.kept
        if exchange.gone:
            return
        response = method.response(message)
        if len(message) < LARGE:
            exchange.respond(200, ANSWER, encode(response).encode())
        else:
            exchange.run(partial(in_pieces, message=response))

    def fail(self, code: int, text: str, trailing: Metadata = ()) -> None:
        """The refusal; what it has beside its text has no place in HTTP."""
        if not self._exchange.gone:
            refuse(self._exchange, Code(code), text)


class Gathering:
    """What came in one."""

    def __init__(self, most_message: int, refused: Callable[[Exchange, str, Status], None]) -> None:
        """`most_message`: bytes of an encoded request. `refused` is told of what the router does not see."""
        self._refused = refused
        self._most = most_message
        self._waiting: list[tuple[Together, Exchange, bytes]] = []

    def take(self, method: Together, exchange: Exchange, body: bytes) -> None:
        """One more; it is looked at once all of this turn have come."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._waiting.append((method, exchange, body))

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        calls: dict[Together, list[_Call]] = {}
        for method, exchange, body in waiting:
            if exchange.gone:
                continue
            try:
                calls.setdefault(method, []).append(self._call(method, exchange, body))
            except BadJson as error:
                refuse(exchange, Code.INVALID_ARGUMENT, str(error))
            except Refused as refused:
                status = Status(Code(refused.code), refused.message)
                self._refused(exchange, method.name, status)
                refuse(exchange, status.code, status.text)
            except Exception as error:  # a fault of ours: it must not be that of the others
                logger.error("a request failed", exc_info=error, extra={"method": method.request.full_name})
                refuse(exchange, Code.UNKNOWN, UNEXPECTED)
        for method, many in calls.items():
            if many:
                method.batch(many)

    def _call(self, method: Together, exchange: Exchange, body: bytes) -> _Call:
        metadata, _ = metadata_of(exchange.headers, exchange.peer if method.addressed else None)
        text = readable(body)
        message = decode(method.request, text)[0] if text.strip(BLANKS) else b""
        if len(message) > self._most:
            raise larger(len(message), self._most)
        return _Call(exchange, method, message, metadata)
