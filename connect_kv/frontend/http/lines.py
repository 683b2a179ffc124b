"""Streams over HTTP: messages of JSON one after another in the request, a line for each answer."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.frontend.grpc.router import Metadata
from connect_kv.frontend.http import errors, heads
from connect_kv.frontend.http.exchange import Crowded, Exchange, TooLarge
from connect_kv.json_mapping.decoding import BadJson, decode, readable
from connect_kv.json_mapping.encoding import encode
from connect_kv.json_mapping.framing import Framer
from connect_kv.json_mapping.syntax import BLANKS
from connect_kv.services.status import Status

_ANSWER = heads.constant(heads.JSON, ("Grpc-Metadata-Content-Type", "application/grpc"))


class LineStream:
    """A `router.Wire` over one request. Its head is sent with the first answer."""

    def __init__(
        self, exchange: Exchange, method: MethodDescriptor, metadata: Metadata, most: int, most_text: int
    ) -> None:
        """`most`: bytes of an encoded request; `most_text`: of the JSON of one."""
        self.metadata = metadata
        self._exchange = exchange
        self._request = method.input_type
        self._response: Callable[[bytes], Any] = GetMessageClass(method.output_type).FromString
        self._most = most
        self._single: list[bytes] | None = None
        self._framer = Framer(most_text)
        self._text = getincrementaldecoder("utf-8")("surrogateescape")
        self._ended = False

    async def take_one(self) -> None:
        """The whole body is one message. Raises BadJson, TooLarge, Crowded."""
        text = readable(await self._exchange.body.whole())
        self._single = [decode(self._request, text)[0] if text.strip(BLANKS) else b""]

    async def read(self) -> bytes | None:
        """The next message. Raises Refused for one that cannot be read."""
        if self._single is not None:
            return self._single.pop() if self._single else None
        try:
            while (text := self._framer.next()) is None:
                if self._ended:
                    return None
                data = await self._exchange.body.read()
                self._ended = data is None
                self._framer.feed(self._text.decode(data or b"", self._ended), last=self._ended)
            message = decode(self._request, text)[0]
        except BadJson as error:
            raise Refusal(Code.INVALID_ARGUMENT, str(error)).error() from None
        except (TooLarge, Crowded, OverflowError):
            raise Refusal(Code.RESOURCE_EXHAUSTED, "connect-kv: a message is too large").error() from None
        if len(message) > self._most:
            raise larger(len(message), self._most)
        return message

    async def write(self, message: bytes) -> None:
        """One line, in a chunk of its own: clients rely on it."""
        line = f'{{"result":{encode(self._response(message))}}}\n'.encode()
        if not self._exchange.begun:
            self._exchange.begin(200, _ANSWER)
        await self._exchange.send(line)

    async def fail(self, status: Status) -> None:
        """The reason of the end, as the last line, or the only one."""
        if not self._exchange.begun:
            code = status.code
            self._exchange.begin(errors.STATUSES[code], errors.fields(code, status.text))
        await self._exchange.send(f"{errors.last_line(status.code, status.text)}\n".encode())

    def end(self) -> None:
        """No more lines."""
        if not self._exchange.begun:
            self._exchange.begin(200, b"")
        self._exchange.finish()


def larger(size: int, most: int) -> Refused:
    """In the words of etcd's gRPC library."""
    text = f"grpc: received message larger than max ({size} vs. {most})"
    return Refusal(Code.RESOURCE_EXHAUSTED, text).error()
