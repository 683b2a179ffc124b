"""Connections that can be cut: each node of Patroni reaches each member of the store through one."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Gate:
    """Forwards a port, until it is shut: then what is open stands still and nothing new is answered."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def shut(self) -> None:
        """Nothing passes from now on, as where a network is cut: nobody is told."""
        self._open.clear()

    def open(self) -> None:
        """Let connections through again."""
        self._open.set()

    async def stop(self) -> None:
        """End what is open."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            await self._open.wait()
            inner, out = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(out)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, out))
                both.create_task(self._carry(inner, writer))
        except (OSError, ExceptionGroup):
            pass
        finally:
            self._tasks.discard(task)
            for end in ends:
                end.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError, NotImplementedError):
            writer.write_eof()
