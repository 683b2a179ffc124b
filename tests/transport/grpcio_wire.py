"""The gRPC library as the wire between members: what those of earlier versions speak, set up as they were."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from connect_kv.credentials import Credentials
from connect_kv.http2.metadata import UNAVAILABLE, StatusError
from connect_kv.transport.limits import TransportLimits
from connect_kv.transport.wire import Answer, OutgoingStream, PeerCaller, Serve

Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcioWire:
    """Implements `transport.wire.PeerWire`."""

    def __init__(self, limits: TransportLimits, credentials: Credentials | None = None) -> None:
        self.limits = limits
        self._credentials = credentials
        self._server: grpc.aio.Server | None = None
        milliseconds = int(limits.keepalive * 1000)
        self._options = [
            ("grpc.max_receive_message_length", limits.max_frame_bytes + 4096),
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.keepalive_timeout_ms", milliseconds),
            ("grpc.http2.ping_timeout_ms", milliseconds),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]

    async def open(self, address: str) -> GrpcioChannel:
        own = ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)
        options = [*self._options, *own]
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(address, options=options)
        else:
            channel = grpc.aio.secure_channel(address, self._credentials.grpc_channel(), options=options)
        try:
            async with asyncio.timeout(self.limits.reconnect_most):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        raise ConnectionRefusedError(f"{address} cannot be reached")
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except BaseException:
            await channel.close()
            raise
        return GrpcioChannel(channel)

    async def listen(self, address: str, unary: Mapping[str, Answer], streams: Mapping[str, Serve]) -> int:
        service = next(iter(unary)).split("/")[1]
        handlers: dict[str, Any] = {}
        for path, answer in unary.items():
            handlers[_name(path)] = grpc.unary_unary_rpc_method_handler(_answering(answer))
        for path, serve in streams.items():
            handlers[_name(path)] = (
                grpc.stream_unary_rpc_method_handler(_answering_once(serve))
                if _name(path) == "InstallSnapshot"
                else grpc.stream_stream_rpc_method_handler(_serving(serve))
            )
        options = [
            *self._options,
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 100),
            ("grpc.http2.max_ping_strikes", 0),
        ]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._credentials.grpc_server())
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)


class GrpcioChannel:
    """Implements `transport.wire.PeerChannel`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    @property
    def leaving(self) -> str:
        ready = self._channel.get_state() is grpc.ChannelConnectivity.READY
        return "" if ready else "not connected"

    async def unary(self, path: str, message: bytes, timeout: float = float("inf")) -> bytes:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        try:
            return await method(message, timeout=None if timeout == float("inf") else timeout)
        except grpc.aio.AioRpcError as error:
            raise _status(error) from error

    def stream(self, path: str) -> OutgoingStream:
        if _name(path) == "InstallSnapshot":
            return _OneAnswer(self._channel, path)
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        return _Stream(method())

    async def close(self) -> None:
        await self._channel.close()


class _Stream:
    """A call of the library as a `transport.wire.FrameStream`; from the first `watch` on a task reads it, and
    another writes what is pushed.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._inbox: deque[bytes] = deque()
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._pushed = 0
        self._failure: StatusError | None = None
        self._ended = False
        self._watcher: Callable[[], None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def read(self) -> bytes | None:
        try:
            message = await self._call.read()
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise _status(error) from error
        return message if isinstance(message, bytes) else None

    async def write(self, message: bytes) -> None:
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            raise _status(error) from error

    def watch(self, watcher: Callable[[], None] | None) -> None:
        self._watcher = watcher
        if watcher is None:
            for task in self._tasks:
                task.cancel()
        else:
            self._tasks = [asyncio.create_task(self._read_on()), asyncio.create_task(self._write_on())]

    def poll(self) -> bytes | None:
        if not self._inbox and self._failure is not None:
            raise self._failure
        return self._inbox.popleft() if self._inbox else None

    @property
    def over(self) -> bool:
        return self._ended and not self._inbox

    @property
    def backlog(self) -> bool:
        return self._pushed > 0

    def push(self, message: bytes) -> None:
        self._pushed += 1
        self._outbox.put_nowait(message)

    def end(self) -> None:
        raise AssertionError("streams between members end by being cancelled")

    def cancel(self) -> None:
        self._call.cancel()

    async def _read_on(self) -> None:
        try:
            while (message := await self.read()) is not None:
                self._inbox.append(message)
                self._tell()
        except StatusError as error:
            self._failure = error
        self._ended = True
        self._tell()

    async def _write_on(self) -> None:
        try:
            while True:
                await self.write(await self._outbox.get())
                self._pushed -= 1
                self._tell()
        except StatusError as error:
            self._failure, self._ended = error, True
            self._tell()

    def _tell(self) -> None:
        if self._watcher is not None:
            self._watcher()


class _OneAnswer(_Stream):
    """A call of many requests and one answer, for which the library has another class."""

    def __init__(self, channel: grpc.aio.Channel, path: str) -> None:
        method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(path)
        super().__init__(method())
        self._done: asyncio.Task[None] | None = None

    async def read(self) -> bytes | None:
        if self._done is not None:
            await self._done
        try:
            answer = await self._call
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise _status(error) from error
        return answer if isinstance(answer, bytes) else None

    def end(self) -> None:
        self._done = asyncio.create_task(self._call.done_writing())


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _status(error: BaseException) -> StatusError:
    if isinstance(error, grpc.aio.AioRpcError):
        return StatusError(error.code().value[0], error.details() or "")
    return StatusError(UNAVAILABLE, str(error) or type(error).__name__)


def _caller(context: Context) -> PeerCaller:
    certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    peer = context.peer()
    return PeerCaller(peer.split(":", 1)[1] if ":" in peer else peer, certificate)


def _code(error: StatusError) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == error.code)


def _answering(answer: Answer) -> Callable[[bytes, Context], Any]:
    async def answered(request: bytes, context: Context) -> bytes:
        try:
            return await answer(request, _caller(context))
        except StatusError as error:
            await context.abort(_code(error), error.text)

    return answered


def _serving(serve: Serve) -> Callable[[object, Context], Any]:
    async def served(_: object, context: Context) -> None:
        try:
            await serve(_Stream(context), _caller(context))
        except StatusError as error:
            await context.abort(_code(error), error.text)

    return served


def _answering_once(serve: Serve) -> Callable[[object, Context], Any]:
    class Once(_Stream):
        answer = b""

        async def write(self, message: bytes) -> None:
            self.answer = message

    async def answered(_: object, context: Context) -> bytes:
        stream = Once(context)
        try:
            await serve(stream, _caller(context))
        except StatusError as error:
            await context.abort(_code(error), error.text)
        return stream.answer

    return answered
