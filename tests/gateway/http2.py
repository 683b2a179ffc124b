"""A client of HTTP/2 for the tests, by the library h2: requests side by side on one connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.gateway.raw import DEADLINE, Answer

_OF_THE_CONNECTION = ("transfer-encoding",)


class Asked:
    """One request, and what came for it."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self.number = number
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.reset: int | None = None
        """The code with which the server gave it up."""

    async def head(self) -> Answer:
        """Status and fields."""
        async with asyncio.timeout(DEADLINE):
            while True:
                match await self.events.get():
                    case h2.events.ResponseReceived(headers=fields):
                        break
                    case h2.events.InformationalResponseReceived():
                        continue
                    case other:
                        raise ConnectionError(repr(other))
        said = {name.decode(): value.decode("latin-1") for name, value in fields}
        assert not said.keys() & _OF_THE_CONNECTION
        assert list(said) == [name.lower() for name in said]
        status = int(said.pop(":status"))
        if "content-length" not in said:
            said["transfer-encoding"] = "chunked"  # as the recorded answers say of pieces
        return Answer(status, said)

    async def chunk(self) -> bytes:
        """The next piece; empty: the last."""
        while True:
            match await self.events.get():
                case h2.events.DataReceived(data=bytes(data), flow_controlled_length=int(size)):
                    self._connection.read(self.number, size)
                    if data:
                        return data
                case h2.events.StreamEnded():
                    return b""
                case h2.events.InformationalResponseReceived():
                    continue
                case other:
                    raise ConnectionError(repr(other))

    async def answer(self, method: str = "POST") -> Answer:
        """A whole one."""
        found = await self.head()
        async with asyncio.timeout(DEADLINE):
            while chunk := await self.chunk():
                found.chunks.append(chunk)
        found.body = b"".join(found.chunks)
        if method != "HEAD" and "content-length" in found.headers:
            assert int(found.headers["content-length"]) == len(found.body)
        return found


class Connection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int) -> None:
        """`window`: bytes of each answer that are taken before they are read."""
        self._reader, self.writer = reader, writer
        self.core = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.core.initiate_connection()
        self.core.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._asked: dict[int, Asked] = {}
        self._room = asyncio.Event()
        self.gone = False
        self._task = asyncio.create_task(self._run())
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.core.data_to_send())

    def read(self, number: int, size: int) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self.core.acknowledge_received_data(size, number)
        self.flush()

    async def _run(self) -> None:
        while data := await self._reader.read(1 << 16):
            for event in self.core.receive_data(data):
                self._room.set()
                number = getattr(event, "stream_id", 0)
                if isinstance(event, h2.events.ConnectionTerminated):
                    self.gone = True
                if number in self._asked and not isinstance(event, h2.events.WindowUpdated):
                    if isinstance(event, h2.events.StreamReset):
                        self._asked[number].reset = event.error_code
                    self._asked[number].events.put_nowait(event)
            self.flush()
        self.gone = True
        self._room.set()

    def begin(
        self, method: str, path: str, headers: Mapping[str, str], authority: str, *, ended: bool
    ) -> Asked:
        """A request without its body."""
        number = self.core.get_next_available_stream_id()
        asked = self._asked[number] = Asked(self, number)
        fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority)]
        fields += [(name.lower(), value) for name, value in headers.items()]
        self.core.send_headers(number, fields, end_stream=ended)
        self.flush()
        return asked

    async def send(self, asked: Asked, body: bytes, *, ended: bool = True) -> None:
        """A piece of its body, as the server's windows allow."""
        number, view = asked.number, memoryview(body)
        while asked.reset is None and not self.gone:
            room = min(self.core.local_flow_control_window(number), self.core.max_outbound_frame_size)
            if room or not view:
                piece, view = view[:room], view[room:]
                self.core.send_data(number, bytes(piece), end_stream=ended and not view)
                self.flush()
                if not view:
                    return
                await asyncio.sleep(0)
            else:
                self._room.clear()
                await self._room.wait()

    async def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], port: int
    ) -> Asked:
        """A whole one."""
        others = {name: value for name, value in headers.items() if name.lower() != "host"}
        asked = self.begin(method, path, others, headers.get("Host", f"127.0.0.1:{port}"), ended=not body)
        if body:
            await self.send(asked, body)
        return asked

    async def call(self, port: int, path: str, body: str = "", **headers: str) -> Answer:
        """A POST and its answer; `_` in names of headers stands for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await (await self.ask("POST", path, body.encode(), sent, port)).answer()

    async def close(self) -> None:
        self.writer.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def connected(
    port: int, *, tls: ssl.SSLContext | None = None, window: int = 1 << 20
) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=1 << 25)
    if tls is not None:
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    connection = Connection(reader, writer, window)
    try:
        yield connection
    finally:
        await connection.close()
