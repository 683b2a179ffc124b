"""Streams over WebSocket: a text message for each request and each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message_factory import GetMessageClass
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from connect_kv.etcd_errors import Code, Refusal
from connect_kv.frontend.grpc.router import MethodRoute, RpcFailed
from connect_kv.frontend.http import heads
from connect_kv.frontend.http.errors import last_line
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.frontend.http.lines import larger
from connect_kv.frontend.http.paths import Target
from connect_kv.json_mapping.decoding import BadJson, decode
from connect_kv.json_mapping.encoding import encode

_WAITING = 16
"""Messages that came and were not read."""


class _Closed(Exception):
    """The client has said goodbye."""


async def serve_websocket(
    exchange: Exchange, target: Target, route: MethodRoute, most: int, most_text: int
) -> None:
    """`most`: bytes of an encoded request; `most_text`: of the JSON of one."""
    connection = WSConnection(ConnectionType.SERVER)
    try:
        connection.initiate_upgrade_connection(list(exchange.headers), exchange.target.decode("latin-1"))
        event = next(connection.events())
        assert isinstance(event, Request)
        protocols: Sequence[str] = event.subprotocols
        chosen = protocols[0] if protocols else None
        answer = connection.send(AcceptConnection(subprotocol=chosen))
    except (RemoteProtocolError, LocalProtocolError) as error:
        exchange.respond(400, heads.constant(heads.TEXT), f"{error}\n".encode())
        return
    exchange.switch(answer)
    # The browser cannot send a header of its own, so the token comes as a second protocol behind "Bearer".
    bearer = len(protocols) == 2 and protocols[0] == "Bearer"
    token = (("authorization", f"Bearer {protocols[1]}"),) if bearer else ()
    stream = _Messages(exchange, connection, target, token, most, most_text)
    try:
        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(stream.receive())
            try:
                await route.stream(stream)
            except RpcFailed as failed:
                await stream.say(last_line(failed.status.code, failed.status.text))
            receiving.cancel()
        await stream.close(CloseReason.NORMAL_CLOSURE)
    except* _Closed:
        pass
    exchange.finish()


class _Messages:
    """A `router.Wire`."""

    def __init__(
        self,
        exchange: Exchange,
        connection: WSConnection,
        target: Target,
        metadata: Sequence[tuple[str, str]],
        most: int,
        most_text: int,
    ) -> None:
        self.metadata = metadata
        self._exchange = exchange
        self._connection = connection
        self._request = target.method.input_type
        self._response: Callable[[bytes], Any] = GetMessageClass(target.method.output_type).FromString
        self._texts: asyncio.Queue[str] = asyncio.Queue(_WAITING)
        self._most = most
        self._most_text = most_text
        self._parts: list[str] = []
        self._size = 0

    async def read(self) -> bytes | None:
        """The next message. Raises Refused for one that cannot be read."""
        text = await self._texts.get()
        try:
            message = decode(self._request, text)[0]
        except BadJson as error:
            raise Refusal(Code.INVALID_ARGUMENT, str(error)).error() from None
        if len(message) > self._most:
            raise larger(len(message), self._most)
        return message

    async def write(self, message: bytes) -> None:
        """Send a response as a message."""
        await self.say(f'{{"result":{encode(self._response(message))}}}')

    async def say(self, text: str) -> None:
        """Send a message as it is."""
        await self._exchange.send(self._connection.send(TextMessage(data=text)))

    async def close(self, reason: CloseReason) -> None:
        """Say goodbye."""
        await self._exchange.send(self._connection.send(CloseConnection(code=reason)))

    async def receive(self) -> None:
        """Take what the client sends, whether or not anybody reads. Raises _Closed at its end."""
        while True:
            try:
                data = await self._exchange.body.read()
            except (TooLarge, Crowded):
                await self._refuse(CloseReason.MESSAGE_TOO_BIG)
            if data is None:
                raise _Closed
            try:
                self._connection.receive_data(data)
                for event in self._connection.events():
                    await self._on(event)
            except RemoteProtocolError:
                await self._refuse(CloseReason.PROTOCOL_ERROR)

    async def _on(self, event: object) -> None:
        match event:
            case TextMessage() | BytesMessage():
                data = event.data
                self._parts.append(data if isinstance(data, str) else bytes(data).decode("utf-8", "replace"))
                self._size += len(self._parts[-1])
                if self._size > self._most_text:
                    await self._refuse(CloseReason.MESSAGE_TOO_BIG)
                if event.message_finished:
                    text, self._parts, self._size = "".join(self._parts), [], 0
                    await self._texts.put(text)
            case Ping():
                await self._exchange.send(self._connection.send(event.response()))
            case CloseConnection():
                await self._exchange.send(self._connection.send(event.response()))
                raise _Closed
            case _:
                pass

    async def _refuse(self, reason: CloseReason) -> None:
        await self.close(reason)
        raise _Closed
