"""HTTP/1.1 by hand: what was sent, to the byte, and what came back, chunk by chunk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

DEADLINE = 8.0


@dataclass
class Answer:
    """One answer; `chunks` only where it came in chunks."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.body.decode()


class Socket:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data if isinstance(data, bytes) else data.encode())

    async def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], port: int
    ) -> Socket:
        """One request; what can be read of its answer is read here."""
        self.send(request(method, path, body, headers, port))
        return self

    async def head(self) -> Answer:
        """Up to the blank line."""
        async with asyncio.timeout(DEADLINE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.lower()] = value.strip()
        return Answer(status, headers)

    async def chunk(self) -> bytes:
        """The next chunk; empty: the last."""
        size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
        data = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def answer(self, method: str = "POST") -> Answer:
        """A whole one."""
        found = await self.head()
        async with asyncio.timeout(DEADLINE):
            if method == "HEAD":
                return found
            if found.headers.get("transfer-encoding") == "chunked":
                while chunk := await self.chunk():
                    found.chunks.append(chunk)
                found.body = b"".join(found.chunks)
            elif "content-length" in found.headers:
                found.body = await self.reader.readexactly(int(found.headers["content-length"]))
            else:
                found.body = await self.reader.read()
        return found

    async def closed(self) -> bool:
        """Whether the server ends the connection."""
        async with asyncio.timeout(DEADLINE):
            try:
                return not await self.reader.read()
            except ConnectionError:
                return True


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Socket]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 25)
    try:
        yield Socket(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(
    method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, port: int = 0
) -> bytes:
    """The bytes of one request."""
    sent = {"Host": f"127.0.0.1:{port}", **(headers or {})}
    if body is not None or method in ("POST", "PUT"):
        sent["Content-Length"] = str(len(body or b""))
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + (body or b"")


async def call(port: int, path: str, body: str = "", **headers: str) -> Answer:
    """A POST on a connection of its own; `_` in names of headers stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with connected(port) as socket:
        socket.send(request("POST", path, body.encode(), sent, port))
        return await socket.answer()
