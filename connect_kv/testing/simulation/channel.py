"""The client channel of the simulation: `grpc.aio.Channel` as far as the client uses it, without gRPC.

Requests and responses cross as encoded bytes, in order, each after its delay; the handlers on the
other side are the server's own. A connection that breaks loses what is under way in both
directions; one that is cut says nothing until the keepalive gives up on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from random import Random
from typing import Any, Protocol

import grpc
import grpc.aio

from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import (
    CERTIFICATE_NAME,
    CallKind,
    Metadata,
    MethodRoute,
    RpcFailed,
    UnaryCall,
)
from connect_kv.services.status import Status
from connect_kv.testing.simulation.process import Process

KEEPALIVE_SECONDS = 13.0
"""A connection on which nothing comes back is given up after this: see the client's channel options."""
CONNECT_SECONDS = 3.0

_NO_CONNECTION = "failed to connect to all addresses; last error: connection refused"
_NO_METADATA = grpc.aio.Metadata()
_CODES = {code.value[0]: code for code in grpc.StatusCode}


Batch = Callable[[Sequence[UnaryCall]], None]
GATHER_SECONDS = 0.0005
"""Calls of one method that come within that time are handed over together, as those of one turn are."""


class Listener(Protocol):
    """A simulated server that accepts calls."""

    @property
    def process(self) -> Process | None:
        """Who runs the handlers; None: nobody yet."""

    def route(self, method: str) -> MethodRoute:
        """Who carries out the method of that full name."""


class ClientNetwork:
    """The network between clients and servers: delays, and connections that break."""

    def __init__(self, rng: Random, find: Callable[[str], Listener | None]) -> None:
        """`find` gives who listens at an address now."""
        self.rng = rng
        self.find = find
        self.delay: tuple[float, float] = (0.0001, 0.001)
        """Shortest and longest time under way, seconds."""
        self.break_rate = 0.0
        """Probability with which a message breaks its connection instead of arriving."""
        self.cut: set[tuple[str, str]] = set()
        """(client, server address) pairs between which nothing passes."""
        self._handed_over: dict[tuple[Process, Batch], list[UnaryCall]] = {}
        """What waits for others of its method to come."""
        self.certificates: dict[str, str] = {}
        """By client, the user whose certificate it shows, if not root's: while authentication is off nobody
        looks at it."""
        self.names: dict[str, None] = {}
        """Of the clients so far."""
        self._connections: dict[SimulatedConnection, None] = {}

    def channel(self, client: str) -> Callable[[str], Any]:
        """Makes the channels of one client, by address."""
        self.names[client] = None
        return lambda address: SimChannel(self, client, address)

    def seconds(self) -> float:
        """How long one message is under way."""
        return self.rng.uniform(*self.delay)

    def opened(self, connection: SimulatedConnection) -> None:
        """Keep an eye on it until it has ended."""
        self._connections[connection] = None

    def closed(self, connection: SimulatedConnection) -> None:
        """A connection has ended: there is nothing more to keep an eye on."""
        self._connections.pop(connection, None)

    def server_gone(self, process: Process) -> None:
        """A process died: the system closes its connections, and their other ends hear of it."""
        for connection in list(self._connections):
            if connection.process is process:
                connection.lost("connection reset by peer")
        for key in [key for key in self._handed_over if key[0] is process]:
            del self._handed_over[key]

    def hand_over(self, process: Process, batch: Batch, call: UnaryCall) -> None:
        """With the others of that method that come soon."""
        gathered = self._handed_over.setdefault((process, batch), [])
        gathered.append(call)
        if len(gathered) == 1:
            process.call_later(GATHER_SECONDS, self._hand_over_now, process, batch)

    def _hand_over_now(self, process: Process, batch: Batch) -> None:
        calls = [call for call in self._handed_over.pop((process, batch)) if not call.gone()]
        if calls:
            batch(calls)


class SimulatedConnection:
    """One call: two ordered directions, and how it ends."""

    def __init__(self, network: ClientNetwork, client: str, address: str, listener: Listener) -> None:
        self.network = network
        assert listener.process is not None
        self.process: Process = listener.process
        self._pair = (client, address)
        self._loop = asyncio.get_running_loop()
        self._clock = {"up": 0.0, "down": 0.0}
        self.requests: deque[bytes] = deque()
        self.half_closed = False
        self.request_arrived = asyncio.Event()
        self.responses: deque[bytes] = deque()
        self.response_arrived = asyncio.Event()
        self.status: tuple[grpc.StatusCode, str, grpc.aio.Metadata] | None = None
        """As the client knows it."""
        self.server: asyncio.Task[None] | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._broken = False
        network.opened(self)

    def up(self, arrive: Callable[[], None]) -> None:
        """Have `arrive` called at the server, after what was sent there before."""
        self._pass("up", arrive)

    def down(self, arrive: Callable[[], None]) -> None:
        """Have `arrive` called at the client, after what was sent there before."""
        self._pass("down", arrive)

    def _pass(self, direction: str, arrive: Callable[[], None]) -> None:
        network = self.network
        if self.status is not None or self._broken:
            return
        if self._silence is not None or self._pair in network.cut:
            self._unanswered()
            return
        if network.break_rate and network.rng.random() < network.break_rate:
            self._broken = True
            self._loop.call_later(network.seconds(), self.lost, "socket closed", context=Context())
            return
        # Never at the same moment: the loop keeps no order among timers that are due together.
        due = max(self._loop.time() + network.seconds(), self._clock[direction] + 1e-6)
        self._clock[direction] = due
        self._loop.call_at(due, self._arrive, arrive, context=Context())

    def _arrive(self, arrive: Callable[[], None]) -> None:
        if self.status is None:
            if self._silence is not None or self._pair in self.network.cut:
                self._unanswered()
            else:
                arrive()

    def _unanswered(self) -> None:
        """Something was lost on the way: nothing comes after it, until somebody gives up."""
        if self._silence is None:
            why = "keepalive watchdog timeout"
            self._silence = self._loop.call_later(KEEPALIVE_SECONDS, self.lost, why, context=Context())

    def lost(self, why: str) -> None:
        """The connection is broken."""
        self.end(grpc.StatusCode.UNAVAILABLE, why)
        self.stop_server()

    def end(self, code: grpc.StatusCode, details: str, trailing: grpc.aio.Metadata = _NO_METADATA) -> None:
        """The client knows how the call ended."""
        if self.status is None:
            self.status = code, details, trailing
            self.network.closed(self)
            self.response_arrived.set()
            if self._silence is not None:
                self._silence.cancel()

    def stop_server(self) -> None:
        """The server learns that nobody wants an answer any more."""
        if self.server is not None and not self.server.done():
            self.server.cancel()

    def error(self) -> grpc.aio.AioRpcError:
        """What the library raises for a call that ended so."""
        assert self.status is not None
        code, details, trailing = self.status
        return grpc.aio.AioRpcError(code, _NO_METADATA, trailing, details)


class SimChannel:
    """One client's channel to one address."""

    def __init__(self, network: ClientNetwork, client: str, address: str) -> None:
        self._network = network
        self._client = client
        self._address = address
        self._calls: dict[SimCall, None] = {}

    def unary_unary(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
    ) -> Any:
        """As grpc.aio's."""

        def start(request: Any, *, timeout: float | None = None, metadata: Any = None) -> Awaitable[Any]:
            call = self._start(path, request_serializer, response_deserializer, metadata)
            return call.single(request, timeout)

        return start

    def unary_stream(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
    ) -> Any:
        """As grpc.aio's."""

        def start(request: Any, *, timeout: float | None = None, metadata: Any = None) -> SimCall:
            call = self._start(path, request_serializer, response_deserializer, metadata)
            call.begin(request)
            return call

        return start

    def stream_stream(
        self,
        path: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
    ) -> Any:
        """As grpc.aio's."""

        def start(*, metadata: Any = None) -> SimCall:
            call = self._start(path, request_serializer, response_deserializer, metadata)
            call.connect()
            return call

        return start

    async def close(self) -> None:
        """End every call."""
        for call in list(self._calls):
            call.cancel()

    def _start(self, path: str, serialize: Any, deserialize: Any, metadata: Any) -> SimCall:
        shown = (CERTIFICATE_NAME, self._network.certificates.get(self._client, "root"))
        with_name = (*(metadata or ()), shown)
        call = SimCall(self._network, self._client, self._address, path, serialize, deserialize, with_name)
        self._calls[call] = None
        call.at_end = self._ended
        return call

    def _ended(self, call: SimCall) -> None:
        self._calls.pop(call, None)


class SimCall:
    """`StreamStreamCall`, and what a unary call is made of."""

    def __init__(
        self,
        network: ClientNetwork,
        client: str,
        address: str,
        path: str,
        serialize: Callable[[Any], bytes],
        deserialize: Callable[[bytes], Any],
        metadata: Sequence[tuple[str, str]] | None,
    ) -> None:
        self._network = network
        self._client = client
        self._address = address
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize
        self._metadata = tuple(metadata or ())
        self._loop = asyncio.get_running_loop()
        self._connection: SimulatedConnection | None = None
        self._failure: grpc.aio.AioRpcError | None = None
        self._decided = asyncio.Event()
        self._cancelled = False
        self.at_end: Callable[[SimCall], None] = lambda call: None

    def connect(self) -> None:
        """Begin; `_open` waits for what comes of it."""
        if (self._client, self._address) in self._network.cut:
            self._loop.call_later(CONNECT_SECONDS, self._refused)
        else:
            self._loop.call_later(self._network.seconds(), self._reach)

    def _reach(self) -> None:
        if self._decided.is_set():
            return
        listener = self._network.find(self._address)
        if listener is None:
            self._refused()
            return
        connection = SimulatedConnection(self._network, self._client, self._address, listener)
        server = _ServerSide(connection, listener.route(self._path), self._metadata)
        connection.server = connection.process.spawn(server.run())
        self._connection = connection
        self._decided.set()

    def _refused(self) -> None:
        if not self._decided.is_set():
            self._failure = grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, _NO_METADATA, _NO_METADATA, _NO_CONNECTION
            )
            self._decided.set()
            self.at_end(self)

    def begin(self, request: Any) -> None:
        """Send the only request, once connected."""
        self.connect()

        async def send() -> None:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
                await self.write(request, last=True)

        self._sending = self._loop.create_task(send())

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Every response; raises unless the call ends well."""
        while (response := await self.read()) is not grpc.aio.EOF:
            yield response
        connection = await self._open()
        if await self.code() is not grpc.StatusCode.OK:
            raise connection.error()

    async def single(self, request: Any, timeout: float | None) -> Any:
        """A unary call, whole."""
        self.connect()
        try:
            async with asyncio.timeout(timeout):
                await self.write(request, last=True)
                response = await self.read()
                if response is grpc.aio.EOF:
                    connection = await self._open()
                    raise connection.error()
                return response
        except TimeoutError:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.DEADLINE_EXCEEDED, _NO_METADATA, _NO_METADATA, "Deadline Exceeded"
            ) from None
        finally:
            self.cancel()

    async def write(self, request: Any, *, last: bool = False) -> None:
        """Send one message, half-closing with it if it is the last; raises if the call has ended."""
        connection = await self._open()
        if connection.status is not None:
            raise asyncio.InvalidStateError("the call has ended")
        data = self._serialize(request)

        def arrive() -> None:
            connection.requests.append(data)
            connection.half_closed = last
            connection.request_arrived.set()

        connection.up(arrive)

    async def done_writing(self) -> None:
        """Half-close."""
        connection = await self._open()

        def arrive() -> None:
            connection.half_closed = True
            connection.request_arrived.set()

        connection.up(arrive)

    async def read(self) -> Any:
        """The next response, or EOF once the call has ended."""
        connection = await self._open()
        while not connection.responses:
            if connection.status is not None:
                if self._cancelled:
                    raise asyncio.CancelledError
                return grpc.aio.EOF
            connection.response_arrived.clear()
            await connection.response_arrived.wait()
        return self._deserialize(connection.responses.popleft())

    def cancel(self) -> bool:
        """End it from the client's side."""
        self._cancelled = True
        self._decided.set()
        self.at_end(self)
        connection = self._connection
        if connection is None or connection.status is not None:
            return False
        connection.up(connection.stop_server)
        connection.end(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        connection.responses.clear()
        # What the client has ended, the server hears of later: after what was under way.
        self._loop.call_later(self._network.seconds(), connection.stop_server)
        return True

    async def code(self) -> grpc.StatusCode:
        """How the call ended."""
        return (await self._ended())[0]

    async def details(self) -> str:
        """How the call ended, in words."""
        return (await self._ended())[1]

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """What came beside the status."""
        return (await self._ended())[2]

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Empty: servers send no metadata before the first response."""
        return _NO_METADATA

    async def _ended(self) -> tuple[grpc.StatusCode, str, grpc.aio.Metadata]:
        connection = await self._open()
        while connection.status is None:
            connection.response_arrived.clear()
            await connection.response_arrived.wait()
        return connection.status

    async def _open(self) -> SimulatedConnection:
        if self._connection is None:
            await self._decided.wait()
        if self._connection is not None:
            return self._connection
        raise self._failure or asyncio.CancelledError


class _HandedOver:
    """A unary call among those of one turn: a `UnaryCall`."""

    def __init__(
        self,
        message: bytes,
        metadata: Metadata,
        answer: Callable[[bytes], None],
        end: Callable[[grpc.StatusCode, str, grpc.aio.Metadata], None],
    ) -> None:
        self.message = message
        self.metadata = metadata
        self.kept: object | None = None
        self._answer = answer
        self._end = end
        self.over = asyncio.Event()
        """It is answered, or nobody waits for that."""

    def gone(self) -> bool:
        """Whether it is over."""
        return self.over.is_set()

    def reply(self, message: bytes) -> None:
        """Answer the call with a response."""
        if not self.gone():
            self._answer(message)
            self.over.set()

    def fail(self, code: int, text: str, trailing: Metadata = ()) -> None:
        """End it with a status."""
        if not self.gone():
            self._end(_CODES[code], text, grpc.aio.Metadata(*trailing))
            self.over.set()


class _ServerSide:
    """Runs a route; it is also the route's `Wire`."""

    def __init__(self, connection: SimulatedConnection, route: MethodRoute, metadata: Metadata) -> None:
        self._connection = connection
        self._route = route
        self.metadata = metadata

    async def run(self) -> None:
        """Serve the call to its end."""
        route = self._route
        try:
            if route.kind is not CallKind.UNARY:
                await route.stream(self)
            else:
                request = await self.read()
                if request is None:
                    raise RpcFailed(Status(Code.CANCELLED, "cancelled"))
                if route.batch is None:
                    self._answer(await route.unary(request, self.metadata))
                else:
                    await self._together(route.batch, request)
                return
        except RpcFailed as failed:
            status = failed.status
            self._end(_CODES[status.code], status.text, grpc.aio.Metadata(*status.trailing))
            return
        except asyncio.CancelledError:
            if not self._connection.process.dead:
                self._end(grpc.StatusCode.CANCELLED, "cancelled")
            raise
        self._end(grpc.StatusCode.OK, "")

    async def _together(self, batch: Batch, request: bytes) -> None:
        """Hand it over with others that come at the same time; ends once it is answered."""
        call = _HandedOver(request, self.metadata, self._answer, self._end)
        self._connection.network.hand_over(self._connection.process, batch, call)
        try:
            await call.over.wait()
        finally:
            call.over.set()

    async def read(self) -> bytes | None:
        """The next request; None once the client has half-closed."""
        connection = self._connection
        while not connection.requests:
            if connection.half_closed:
                return None
            connection.request_arrived.clear()
            await connection.request_arrived.wait()
        return connection.requests.popleft()

    async def write(self, message: bytes) -> None:
        """Send a response of the stream."""
        connection = self._connection

        def arrive() -> None:
            connection.responses.append(message)
            connection.response_arrived.set()

        if not connection.process.dead:
            connection.down(arrive)

    def _answer(self, response: bytes) -> None:
        """The only response, and the status with it."""
        connection = self._connection

        def arrive() -> None:
            connection.responses.append(response)
            connection.end(grpc.StatusCode.OK, "")

        if not connection.process.dead:
            connection.down(arrive)

    def _end(self, code: grpc.StatusCode, details: str, trailing: grpc.aio.Metadata = _NO_METADATA) -> None:
        connection = self._connection
        if not connection.process.dead:
            connection.down(lambda: connection.end(code, details, trailing))
