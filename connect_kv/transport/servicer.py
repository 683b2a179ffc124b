"""The listening side: what other members open towards this one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import grpc

from connect_kv.peer_protocol import Hello, HelloReply, HelloVerdict
from connect_kv.trailers import shortened
from connect_kv.transport.ask import answer_ask
from connect_kv.transport.codec import BadMessage, decode_frame, encode_frame
from connect_kv.transport.describe import answer_describe
from connect_kv.transport.limits import SERVICE
from connect_kv.transport.local import Local
from connect_kv.transport.send_queue import SendQueue
from connect_kv.transport.snapshot_receiver import SnapshotStreams
from connect_kv.transport.stream import (
    RPC_FAILURES,
    Lane,
    PermissionDenied,
    StreamBroken,
    check_ends,
    describe_failure,
    exchange,
    read_frame,
)

_log = logging.getLogger(__name__)

_MOST_DENIED = 256

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(slots=True, eq=False)
class _Incoming:
    """A welcomed stream and what waits to go back on it."""

    source: int
    outbox: SendQueue


class RaftServicer:
    """Serves ``connect_kv.v1.Raft``."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._incoming: dict[tuple[Lane, int], _Incoming] = {}
        self._snapshots = SnapshotStreams(local)
        self._denied: set[tuple[str, str]] = set()
        self._running: set[asyncio.Task[object]] = set()

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to a server. Frames pass as bytes: the codec decides what is wrong with them."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                Lane.APPEND.value: grpc.stream_stream_rpc_method_handler(self._append_entries),
                Lane.FORWARD.value: grpc.stream_stream_rpc_method_handler(self._forward),
                "RequestVote": grpc.unary_unary_rpc_method_handler(self._letter),
                "TimeoutNow": grpc.unary_unary_rpc_method_handler(self._letter),
                "InstallSnapshot": grpc.stream_unary_rpc_method_handler(self._install_snapshot),
                "Describe": grpc.unary_unary_rpc_method_handler(self._describe),
                "Ask": grpc.unary_unary_rpc_method_handler(self._ask),
            },
        )

    def send_back(self, lane: Lane, target: int, frame: bytes, *, urgent: bool) -> bool | None:
        """Queue it on the stream that `target` opened; False if dropped, None if it opened none."""
        incoming = self._incoming.get((lane, target))
        return None if incoming is None else incoming.outbox.put(frame, urgent=urgent)

    def end_streams(self, sources: Iterable[int]) -> None:
        """End the streams of those; when they come again, their hello is judged anew."""
        ended = set(sources)
        for incoming in self._incoming.values():
            if incoming.source in ended:
                incoming.outbox.close()

    async def close(self) -> None:
        """End every call being served. The server is stopped already."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._snapshots.close()

    async def _append_entries(self, _: object, context: Context) -> None:
        await self._serve_stream(Lane.APPEND, context)

    async def _forward(self, _: object, context: Context) -> None:
        await self._serve_stream(Lane.FORWARD, context)

    async def _serve_stream(self, lane: Lane, context: Context) -> None:
        async with self._guarded(context) as names:
            hello = (await read_frame(context)).hello
            if hello is None:
                raise BadMessage("a stream must begin with a hello")
            reply = await self._local.receiver.hello(replace(hello, certified=names))
            if reply.verdict is HelloVerdict.WELCOME:
                # Before the reply leaves: whoever is welcomed may rely on answers coming back.
                await self._exchange(lane, hello, reply, context)
            else:
                await context.write(encode_frame(hello_reply=reply))

    async def _exchange(self, lane: Lane, hello: Hello, reply: HelloReply, context: Context) -> None:
        incoming = _Incoming(hello.source, SendQueue(self._local.limits))
        key = (lane, hello.source)
        self._incoming[key] = incoming
        try:
            await context.write(encode_frame(hello_reply=reply))
            traffic = self._local.traffic.of(hello.source)
            await exchange(context, incoming.outbox, hello.source, hello.target, self._local.receive, traffic)
        finally:
            # A newer stream of the same sender may have taken the place.
            if self._incoming.get(key) is incoming:
                del self._incoming[key]

    async def _letter(self, request: bytes, context: Context) -> bytes:
        """A message that is not answered here: its answer, if any, comes as a letter of its own."""
        async with self._guarded(context) as names:
            frame = decode_frame(request)
            if frame.hello is None:
                raise BadMessage("a unary call needs a hello")
            reply = await self._local.receiver.hello(replace(frame.hello, certified=names))
            if reply.verdict is not HelloVerdict.WELCOME:
                return encode_frame(hello_reply=reply)
            self._local.traffic.of(frame.hello.source).received_bytes += len(request)
            for message in frame.messages:
                check_ends(message, frame.hello.source, frame.hello.target)
                self._local.receive(message)
        return b""

    async def _install_snapshot(self, _: object, context: Context) -> bytes:
        async with self._guarded(context) as names:
            return await self._snapshots.serve(context, names)
        return b""

    async def _describe(self, request: bytes, context: Context) -> bytes:
        async with self._guarded(context) as names:
            return await answer_describe(request, self._local.receiver, names)
        return b""

    async def _ask(self, request: bytes, context: Context) -> bytes:
        async with self._guarded(context) as names:
            return await answer_ask(request, self._local.receiver, names)
        return b""

    def _deny(self, context: Context, error: PermissionDenied) -> None:
        """Say so once for each host and reason: whoever is refused tries again every second."""
        denied = context.peer().rpartition(":")[0], str(error)
        if denied not in self._denied:
            if len(self._denied) >= _MOST_DENIED:
                self._denied.clear()
            self._denied.add(denied)
            _log.warning("who is no member was refused", extra={"address": denied[0], "reason": denied[1]})

    @asynccontextmanager
    async def _guarded(self, context: Context) -> AsyncIterator[frozenset[str] | None]:
        """Give the names in the caller's certificate; turn what goes wrong into a status for the caller and
        a line here, and keep the task.
        """
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        code = grpc.StatusCode.INTERNAL
        try:
            yield self._local.channels.presented(context)
            return
        except PermissionDenied as error:
            self._deny(context, error)
            code, text = grpc.StatusCode.PERMISSION_DENIED, str(error)
        except BadMessage as error:
            _log.warning("refused what %s sent: %s", context.peer(), error)
            code, text = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except StreamBroken as error:
            _log.debug("stream of %s is over: %s", context.peer(), error)
            code, text = grpc.StatusCode.UNAVAILABLE, str(error)
        except RPC_FAILURES as error:
            _log.debug("call of %s is over: %s", context.peer(), describe_failure(error))
            code, text = grpc.StatusCode.UNAVAILABLE, describe_failure(error)
        except Exception as error:
            _log.exception("call of %s failed", context.peer())
            text = describe_failure(error)
        finally:
            self._running.discard(task)
        await context.abort(code, shortened(text))
