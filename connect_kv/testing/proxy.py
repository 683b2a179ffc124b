"""Nodes on loopback, their peers behind proxies of ours: for machines where namespaces are not allowed.

A member has one peer address for all others, so each has one proxy in front of it. Who dials is found out
from the system's table of sockets: the process that owns the other end. Bytes cannot be lost from a
TCP connection; what is lost waits as long as a retransmission would take.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from pathlib import Path

from connect_kv.testing.network import PERFECT, NodeLocation, Quality
from connect_kv.testing.ports import free_ports

RETRANSMISSION = 0.2
BLOCKED_LOOK = 0.02
"""Seconds between two looks whether a link is free again."""


class ProxyNetwork:
    """See the module."""

    kind = "loopback and proxies between peers"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._servers: list[asyncio.Server] = []
        self._pids: dict[str, int] = {}
        self._qualities: dict[tuple[str, str], Quality] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, names: Sequence[str]) -> dict[str, NodeLocation]:
        """Every proxy listens; the nodes behind them need not run yet."""
        places = {}
        for name in names:
            client, peer, http = free_ports(3)

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name, peer: int = peer
            ) -> None:
                await self._serve(reader, writer, name, peer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._servers.append(server)
            port = server.sockets[0].getsockname()[1]
            places[name] = NodeLocation("127.0.0.1", (client, peer, http), f"127.0.0.1:{port}")
        return places

    def started(self, name: str, pid: int) -> None:
        """Its connections are recognised by that process."""
        self._pids[name] = pid

    def set(self, source: str, target: str, quality: Quality) -> None:
        """For connections that are open as well."""
        self._qualities[source, target] = quality

    async def close(self) -> None:
        """End all connections."""
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, port: int
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        source = self._owner(writer.get_extra_info("peername")[1])
        ends = [writer]
        try:
            if source is None:
                # It would be joined whatever `set` says. Its dialer is gone, or is not found out here.
                return
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
            ends.append(there_writer)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pass(reader, there_writer, source, target))
                directions.create_task(self._pass(there_reader, writer, target, source))
        except (OSError, ExceptionGroup):
            return
        finally:
            for end in ends:
                end.transport.abort()
            self._tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, target: str
    ) -> None:
        while data := await reader.read(65536):
            quality = self._quality(source, target)
            while quality.blocked:
                await asyncio.sleep(BLOCKED_LOOK)
                quality = self._quality(source, target)
            if quality is not PERFECT:
                pause = quality.delay + quality.jitter * self._rng.random()
                while self._rng.random() < quality.loss:
                    pause += RETRANSMISSION
                await asyncio.sleep(pause)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("ended by one side")

    def _quality(self, source: str, target: str) -> Quality:
        return self._qualities.get((source, target), PERFECT)

    def _owner(self, port: int) -> str | None:
        """The node whose process has a socket on that local port; None if none has."""
        inodes = _inodes_of(port)
        for name, pid in self._pids.items():
            if any(_owns(pid, inode) for inode in inodes):
                return name
        return None


def _inodes_of(port: int) -> list[str]:
    """Of connections from that port. Sockets for both IPv4 and IPv6, as gRPC makes them, are in the second
    table, whatever they are connected to.
    """
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "01":
                found.append(fields[9])
    return found


def _owns(pid: int, inode: str) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(directory):
            try:
                if os.readlink(f"{directory}/{name}") == f"socket:[{inode}]":
                    return True
            except OSError:  # closed meanwhile
                continue
    except OSError:  # the process is gone
        return False
    return False
