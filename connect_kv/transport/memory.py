"""The Transport between nodes of one process, with faults on request.

The same rng, loop and calls give the same deliveries in the same order: nothing here reads a clock
other than the loop's, and nothing is left to the order of a set.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from random import Random

from connect_kv.errors import RefusedToStart
from connect_kv.interfaces import PeerReceiver
from connect_kv.peer_protocol import Description, Hello, HelloVerdict, Loss, PeerMessage, SnapshotOffer
from connect_kv.transport.pieces import closed_after

_MAX_WAITING = 4096
"""Messages that may wait for a connection."""
_OVERTAKEN = (0.001, 0.05)
"""Seconds that a message put out of order, or its duplicate, comes late."""


@dataclass(slots=True, kw_only=True)
class Faults:
    """What the network does to messages and connections; may be changed at any time.

    Seconds and probabilities.
    """

    delay: tuple[float, float] = (0.0, 0.0)
    """Shortest and longest time under way."""
    drop: float = 0.0
    """Lost without anybody hearing of it."""
    duplicate: float = 0.0
    """Delivered a second time, later."""
    reorder: float = 0.0
    """Overtaken by what is sent after it."""
    retry: float = 0.1
    """Pause between attempts to reach a peer."""
    refused_pause: float = 1.0
    """Pause after a peer did not welcome us."""


class MemoryNetwork:
    """Connects MemoryTransports by address."""

    def __init__(self, rng: Random, *, faults: Faults | None = None) -> None:
        self.rng = rng
        self.faults = faults or Faults()
        self._listening: dict[str, MemoryTransport] = {}
        self._cut: set[tuple[str, str]] = set()

    def transport(self, address: str) -> MemoryTransport:
        """A transport that will listen there."""
        return MemoryTransport(self, address)

    def transports(self) -> Mapping[str, MemoryTransport]:
        """Who listens now, by address."""
        return self._listening

    def cut(self, source: str, target: str) -> None:
        """Nothing passes from one address to the other any more, in this direction only."""
        self._cut.add((source, target))

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut every two addresses that are in different groups, in both directions."""
        sides = [list(group) for group in groups]
        for side in sides:
            for other in sides:
                if other is not side:
                    self._cut.update((source, target) for source in side for target in other)

    def isolate(self, address: str) -> None:
        """Cut it off from everybody who listens now."""
        self.partition([address], [other for other in self._listening if other != address])

    def heal(self) -> None:
        """Everything passes again. Links notice within a second."""
        self._cut.clear()

    def passes(self, source: str, target: str) -> bool:
        """Whether what leaves `source` now can arrive at `target`."""
        return (source, target) not in self._cut

    def reach(self, source: str, target: str) -> MemoryTransport | None:
        """Who listens there, if a connection from `source` works in both directions."""
        connected = self.passes(source, target) and self.passes(target, source)
        return self._listening.get(target) if connected else None

    def delay(self) -> float:
        """Seconds under way, for one message."""
        shortest, longest = self.faults.delay
        return shortest if longest <= shortest else self.rng.uniform(shortest, longest)

    def listen(self, transport: MemoryTransport) -> None:
        """Put it at its address. Raises RefusedToStart if another one is there."""
        if transport.address in self._listening:
            raise RefusedToStart(f"cannot listen for peers on {transport.address}: address already in use")
        self._listening[transport.address] = transport

    def leave(self, transport: MemoryTransport) -> None:
        """Take a transport away from its address."""
        if self._listening.get(transport.address) is transport:
            del self._listening[transport.address]


class MemoryTransport:
    """One node's end of a MemoryNetwork."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self.network = network
        self.address = address
        self.receiver: PeerReceiver | None = None
        self.hello: Callable[[int], Hello] | None = None
        self._links: dict[int, MemoryLink] = {}
        self._answers: dict[int, MemoryLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unreachable: dict[int, Loss] = {}
        self._early_peers: Mapping[int, str] = {}
        self._closed = False

    async def start(self, receiver: PeerReceiver, hello: Callable[[int], Hello]) -> None:
        """Listen at the address. Raises RefusedToStart if somebody does."""
        self.receiver, self.hello = receiver, hello
        self.network.listen(self)
        self.set_peers(self._early_peers)

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Replace the known peers, this member itself left out."""
        hello = self.hello
        if hello is None:
            self._early_peers = addresses
            return
        wanted = {
            node_id: address for node_id, address in addresses.items() if hello(node_id).source != node_id
        }
        for node_id, link in list(self._links.items()):
            if wanted.get(node_id) != link.address:
                link.close()
                del self._links[node_id]
                if node_id not in wanted and (answers := self._answers.pop(node_id, None)) is not None:
                    answers.disconnect()
        for node_id, address in wanted.items():
            if node_id not in self._links:
                self._links[node_id] = MemoryLink(self, node_id, address)

    def send(self, message: PeerMessage) -> None:
        """Pass it on, as the network's faults allow."""
        if self._closed:
            return
        # As over gRPC, who knows no address of the asker answers on the asker's connection.
        link, back = self._links.get(message.target), self._answers.get(message.target)
        sent = link is not None and link.send(message)
        if not sent and back is not None:
            sent = back.send_back(message)
        if not sent:
            self.unreachable(message.target, Loss.DROPPED)

    def flush(self) -> None:
        """What was sent is under way."""

    async def send_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        """Hand it over piece by piece; breaks when the network does. Raises OSError."""
        async with closed_after(chunks):
            await self._send_snapshot(offer, chunks)

    async def _send_snapshot(self, offer: SnapshotOffer, chunks: AsyncIterator[bytes]) -> None:
        target = offer.hello.target
        link = self._links.get(target)
        there = None if link is None else self.network.reach(self.address, link.address)
        if there is None or there.receiver is None:
            raise ConnectionError(f"snapshot to {target:x}: unreachable")
        await asyncio.sleep(self.network.delay())
        reply = await there.receiver.hello(offer.hello)
        self._check_connected(there)
        if reply.verdict is not HelloVerdict.WELCOME:
            self._receiver().hello_reply(target, reply)
            raise ConnectionRefusedError(f"snapshot to {target:x}: {reply.verdict.name} {reply.detail}")
        install = there.own(there.receiver.receive_snapshot(offer, self._under_way(there, chunks)))
        try:
            await asyncio.wait({install})
        finally:
            install.cancel()
            await asyncio.wait({install})
        if install.cancelled():
            raise ConnectionError(f"snapshot to {target:x}: the receiver is gone")
        error = install.exception()
        if error is not None:
            raise ConnectionError(f"snapshot to {target:x}: {error}") from error
        self._check_connected(there)

    async def _under_way(self, there: MemoryTransport, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            await asyncio.sleep(self.network.delay())
            self._check_connected(there)
            yield chunk

    def _check_connected(self, there: MemoryTransport) -> None:
        if self._closed or self.network.reach(self.address, there.address) is not there:
            raise ConnectionError(f"the connection from {self.address} to {there.address} broke")

    async def describe(self, address: str, asker: Hello, peer_address: str) -> Description:
        """Ask whoever listens at `address`. Raises OSError if nobody can be reached."""
        await asyncio.sleep(self.network.delay())
        there = self.network.reach(self.address, address)
        if there is None or there.receiver is None:
            raise ConnectionError(f"{address}: unreachable")
        description = await there.receiver.describe(asker, peer_address)
        await asyncio.sleep(self.network.delay())
        if self.network.reach(self.address, address) is not there:
            raise ConnectionError(f"{address}: the connection broke")
        return description

    async def ask(self, target: int, method: str, request: bytes) -> bytes:
        """Have that member carry out a call. Raises OSError."""
        link, hello = self._links.get(target), self.hello
        await asyncio.sleep(self.network.delay())
        there = None if link is None else self.network.reach(self.address, link.address)
        if there is None or there.receiver is None or hello is None:
            raise ConnectionRefusedError(f"member {target:x} cannot be reached")
        try:
            answer = await there.receiver.answer(hello(target), method, request)
        except PermissionError as error:
            raise ConnectionRefusedError(str(error)) from error
        await asyncio.sleep(self.network.delay())
        self._check_connected(there)
        return answer

    async def close(self) -> None:
        """End all links and stop listening."""
        tasks = list(self._tasks)
        self.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abort(self) -> None:
        """What a killed process leaves: nothing more is sent or received, at once."""
        self._closed = True
        self.network.leave(self)
        for link in self._links.values():
            link.close()
        for link in self._answers.values():
            link.disconnect()
        self._links.clear()
        self._answers.clear()
        for task in self._tasks:
            task.cancel()

    # For links of this network

    @property
    def closed(self) -> bool:
        """Whether this end is gone for good."""
        return self._closed

    def own(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run it as long as this end lives."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def connected_from(self, source: int, link: MemoryLink) -> None:
        """A link to here was welcomed: answers to its owner may go back on it."""
        self._answers[source] = link

    def unreachable(self, node_id: int, loss: Loss) -> None:
        """Report it soon, once however much was lost until then."""
        if self._closed:
            return
        if not self._unreachable:
            asyncio.get_running_loop().call_soon(self._report)
        if loss is not Loss.DROPPED or node_id not in self._unreachable:
            self._unreachable[node_id] = loss

    def _report(self) -> None:
        lost, self._unreachable = list(self._unreachable.items()), {}
        for node_id, loss in lost:
            if not self._closed:
                self._receiver().unreachable(node_id, loss)

    def _receiver(self) -> PeerReceiver:
        if self.receiver is None:
            raise RuntimeError("start the transport first")
        return self.receiver


class MemoryLink:
    """A connection from one node to another: made, introduced, used, and made again."""

    def __init__(self, owner: MemoryTransport, node_id: int, address: str) -> None:
        self.address = address
        self._owner = owner
        self._node_id = node_id
        self._there: MemoryTransport | None = None
        self._out: _Wire | None = None
        self._back: _Wire | None = None
        self._away = False
        self._waiting: deque[PeerMessage] = deque()
        self._broken = asyncio.Event()
        self._task = owner.own(self._run())

    def send(self, message: PeerMessage) -> bool:
        """Towards the peer; False if it was dropped because nobody is there."""
        if self._out is not None:
            if self._owner.network.reach(self._owner.address, self.address) is self._there:
                self._out.carry(message)
                return True
            self.disconnect()
        if self._away or len(self._waiting) >= _MAX_WAITING:
            return False
        self._waiting.append(message)
        return True

    def send_back(self, message: PeerMessage) -> bool:
        """From the peer, to who made the connection."""
        if self._back is None:
            return False
        self._back.carry(message)
        return True

    def disconnect(self) -> None:
        """Break it; it is made again. What is under way is lost."""
        for wire in (self._out, self._back):
            if wire is not None:
                wire.close()
        self._there = self._out = self._back = None
        self._away = True
        self._broken.set()

    def close(self) -> None:
        """Break the link for good: nothing is sent over it any more."""
        self.disconnect()
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            pause = await self._connect()
            if pause is None:
                await self._broken.wait()
                pause = self._owner.network.faults.retry
            self._away = True
            self._waiting.clear()
            self._owner.unreachable(self._node_id, self._loss())
            await asyncio.sleep(pause)

    def _loss(self) -> Loss:
        return Loss.SILENT if self.address in self._owner.network.transports() else Loss.REFUSED

    async def _connect(self) -> float | None:
        """None once connected; otherwise how long to pause."""
        owner, network = self._owner, self._owner.network
        there = network.reach(owner.address, self.address)
        await asyncio.sleep(network.delay())
        if there is None or there.receiver is None or owner.receiver is None or owner.hello is None:
            return network.faults.retry
        reply = await there.receiver.hello(owner.hello(self._node_id))
        await asyncio.sleep(network.delay())
        if network.reach(owner.address, self.address) is not there:
            return network.faults.retry
        self._broken.clear()
        self._away = False
        owner.receiver.hello_reply(self._node_id, reply)
        if reply.verdict is not HelloVerdict.WELCOME:
            return network.faults.refused_pause
        if owner.closed:
            return network.faults.retry
        self._establish(there, there.receiver.receive, owner.receiver.receive)
        return None

    def _establish(
        self,
        there: MemoryTransport,
        receive_there: Callable[[PeerMessage], None],
        receive_here: Callable[[PeerMessage], None],
    ) -> None:
        network = self._owner.network
        self._there = there
        self._out = _Wire(network, self._owner.address, self.address, receive_there)
        self._back = _Wire(network, self.address, self._owner.address, receive_here)
        there.connected_from(self._introduced_as(), self)
        while self._waiting:
            self._out.carry(self._waiting.popleft())

    def _introduced_as(self) -> int:
        assert self._owner.hello is not None
        return self._owner.hello(self._node_id).source


class _Wire:
    """One direction of a connection: in order, each message after its delay, unless faults say otherwise."""

    def __init__(
        self, network: MemoryNetwork, source: str, target: str, receive: Callable[[PeerMessage], None]
    ) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[tuple[float, PeerMessage]] = deque()
        self._timer: asyncio.Handle | None = None
        self._open = True

    def carry(self, message: PeerMessage) -> None:
        """Deliver it later, at the earliest in the loop's next turn."""
        faults, rng = self._network.faults, self._network.rng
        if faults.drop and rng.random() < faults.drop:
            return
        if faults.duplicate and rng.random() < faults.duplicate:
            self._loop.call_later(self._network.delay() + rng.uniform(*_OVERTAKEN), self._arrive, message)
        if faults.reorder and rng.random() < faults.reorder:
            self._loop.call_later(self._network.delay() + rng.uniform(*_OVERTAKEN), self._arrive, message)
            return
        due = self._loop.time() + self._network.delay()
        if self._under_way:
            due = max(due, self._under_way[-1][0])
        self._under_way.append((due, message))
        if self._timer is None:
            self._wait_for_next()

    def close(self) -> None:
        """Lose what is under way."""
        self._open = False
        self._under_way.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _wait_for_next(self) -> None:
        due = self._under_way[0][0]
        if due <= self._loop.time():
            self._timer = self._loop.call_soon(self._deliver, due)
        else:
            self._timer = self._loop.call_at(due, self._deliver, due)

    def _deliver(self, until: float) -> None:
        self._timer = None
        while self._under_way and self._under_way[0][0] <= until:
            self._arrive(self._under_way.popleft()[1])
        if self._under_way and self._timer is None:
            self._wait_for_next()

    def _arrive(self, message: PeerMessage) -> None:
        if self._open and self._network.passes(self._source, self._target):
            self._receive(message)
