"""The peer transport of a simulated machine: a MemoryTransport whose ends are different processes.

What arrives runs as the process it is for, whoever sent it: a paused one finds it when it goes on,
a dead one never does, and nothing under way is held up by what happened to its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context

from connect_kv.interfaces import PeerReceiver
from connect_kv.peer_protocol import (
    Description,
    Hello,
    HelloReply,
    HelloVerdict,
    Loss,
    PeerMessage,
    SnapshotOffer,
)
from connect_kv.testing.simulation.process import Process, across
from connect_kv.transport.memory import MemoryTransport
from connect_kv.transport.pieces import closed_after

Sees = Callable[[PeerMessage], None]


class SimTransport:
    """`interfaces.Transport` of one process."""

    def __init__(self, inner: MemoryTransport, process: Process, sees: Sees) -> None:
        """`sees` is shown every message this process sends."""
        self._inner = inner
        self._process = process
        self._sees = sees

    async def start(self, receiver: PeerReceiver, hello: Callable[[int], Hello]) -> None:
        """Listen."""
        if self._process.dead:
            raise ConnectionError("this process is dead")
        await self._inner.start(_Gate(receiver, self._process), hello)

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Replace the known peers."""
        self._inner.set_peers(addresses)

    def send(self, message: PeerMessage) -> None:
        """Hand it to the network."""
        if not self._process.dead:
            self._sees(message)
            # The network's timers belong to no process.
            Context().run(self._inner.send, message)

    def flush(self) -> None:
        """The network has it already."""

    async def send_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Stream a snapshot to another member."""
        pipe = _Pipe()
        feeding = self._process.spawn(pipe.feed(chunks))
        try:
            await self._inner.send_snapshot(offer, pipe.read())
        finally:
            feeding.cancel()
            await asyncio.wait([feeding])

    async def describe(self, address: str, asker: Hello, peer_address: str) -> Description:
        """Ask a running member."""
        return await self._inner.describe(address, asker, peer_address)

    async def ask(self, target: int, method: str, request: bytes) -> bytes:
        """Have that member carry out a call."""
        return await self._inner.ask(target, method, request)

    async def close(self) -> None:
        """Stop listening."""
        await self._inner.close()

    def abort(self) -> None:
        """What a killed process leaves."""
        self._inner.abort()


class _Pipe:
    """The sender reads its state itself, and its failures stay with it: to the receiver it is gone."""

    def __init__(self) -> None:
        self._chunk: bytes | None = None
        self._ended = self._whole = False
        self._changed = asyncio.Condition()

    async def feed(self, chunks: AsyncIterator[bytes]) -> None:
        try:
            async with closed_after(chunks):
                async for chunk in chunks:
                    async with self._changed:
                        await self._changed.wait_for(lambda: self._chunk is None)
                        self._chunk = chunk
                        self._changed.notify_all()
            self._whole = True
        finally:
            self._ended = True
            async with self._changed:
                self._changed.notify_all()

    async def read(self) -> AsyncIterator[bytes]:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._chunk is not None or self._ended)
                chunk, self._chunk = self._chunk, None
                self._changed.notify_all()
            if chunk is not None:
                yield chunk
            elif self._whole:
                return
            else:
                raise ConnectionError("the sender of the snapshot is gone")


class _Gate:
    """`PeerReceiver` on the border of a process."""

    def __init__(self, receiver: PeerReceiver, process: Process) -> None:
        self._receiver = receiver
        self._process = process

    async def hello(self, hello: Hello) -> HelloReply:
        try:
            return await across(self._process, self._process.spawn(self._receiver.hello(hello)))
        except Exception as error:
            # A stream that its peer ends without an answer; whoever dialled tries again.
            return HelloReply(verdict=HelloVerdict.INCOMPATIBLE, detail=str(error))

    def hello_reply(self, node_id: int, reply: HelloReply) -> None:
        self._process.call_soon(self._receiver.hello_reply, node_id, reply)

    def receive(self, message: PeerMessage) -> None:
        # By way of the loop it would be one more step, and the network has made it wait already.
        self._process.call_now(self._receiver.receive, message)

    def unreachable(self, node_id: int, loss: Loss) -> None:
        self._process.call_soon(self._receiver.unreachable, node_id, loss)

    async def receive_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        install = self._process.spawn(self._receiver.receive_snapshot(offer, chunks))
        try:
            await across(self._process, install)
        finally:
            install.cancel()

    async def describe(self, asker: Hello, peer_address: str) -> Description:
        return await across(self._process, self._process.spawn(self._receiver.describe(asker, peer_address)))

    async def answer(self, hello: Hello, method: str, request: bytes) -> bytes:
        return await across(self._process, self._process.spawn(self._receiver.answer(hello, method, request)))
