"""A TCP relay on loopback whose connections can be cut or stalled."""

from __future__ import annotations

import asyncio


class Proxy:
    """Between a node and the address `target`, until told otherwise."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.connections = 0
        self.bytes_passed = 0
        self.cut_after: int | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def cut(self) -> None:
        """Break every connection; new ones are made again."""
        for writer in self._writers:
            writer.transport.abort()

    def stall(self) -> None:
        """Connections stay, nothing passes: as a machine that lost its power."""
        self._open.clear()

    def resume(self) -> None:
        """What was held up passes on."""
        self._open.set()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        self.resume()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        host, _, port = self._target.rpartition(":")
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        self._writers |= {writer, there_writer}
        directions = [
            asyncio.create_task(self._pass(reader, there_writer)),
            asyncio.create_task(self._pass(there_reader, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for end in (writer, there_writer):
                end.transport.abort()
                self._writers.discard(end)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            self.bytes_passed += len(data)
            if self.cut_after is not None and self.bytes_passed >= self.cut_after:
                self.cut_after = None
                return
            writer.write(data)
            await writer.drain()
