"""The listening side: what other members open towards this one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from connect_kv.http2.metadata import (
    INTERNAL,
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    UNAVAILABLE,
    StatusError,
)
from connect_kv.peer_protocol import Hello, HelloReply, HelloVerdict
from connect_kv.transport.ask import answer_ask
from connect_kv.transport.codec import BadMessage, decode_frame, encode_frame
from connect_kv.transport.describe import answer_describe
from connect_kv.transport.exchange import check_ends, exchange
from connect_kv.transport.limits import SERVICE
from connect_kv.transport.local import Local
from connect_kv.transport.send_queue import SendQueue
from connect_kv.transport.snapshot_receiver import SnapshotStreams
from connect_kv.transport.stream import Lane, PermissionDenied, describe_failure, read_frame
from connect_kv.transport.trust import certified_names
from connect_kv.transport.wire import CALL_FAILURES, Answer, FrameStream, PeerCaller, Serve

_log = logging.getLogger(__name__)

_MOST_DENIED = 256


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

    @property
    def unary(self) -> dict[str, Answer]:
        """Calls with one answer, by path. Messages are bytes: the codec decides what is wrong with them."""
        return {
            f"/{SERVICE}/RequestVote": self._letter,
            f"/{SERVICE}/TimeoutNow": self._letter,
            f"/{SERVICE}/Describe": self._describe,
            f"/{SERVICE}/Ask": self._ask,
        }

    @property
    def streams(self) -> dict[str, Serve]:
        """Streams, by path."""
        return {
            f"/{SERVICE}/{Lane.APPEND.value}": partial(self._serve_stream, Lane.APPEND),
            f"/{SERVICE}/{Lane.FORWARD.value}": partial(self._serve_stream, Lane.FORWARD),
            f"/{SERVICE}/InstallSnapshot": self._install_snapshot,
        }

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
        """Give up snapshots that are being received. What serves calls has ended already."""
        await self._snapshots.close()

    async def _serve_stream(self, lane: Lane, stream: FrameStream, caller: PeerCaller) -> None:
        with self._guarded(caller) as names:
            hello = (await read_frame(stream)).hello
            if hello is None:
                raise BadMessage("a stream must begin with a hello")
            reply = await self._local.receiver.hello(replace(hello, certified=names))
            if reply.verdict is HelloVerdict.WELCOME:
                # Before the reply leaves: whoever is welcomed may rely on answers coming back.
                await self._exchange(lane, hello, reply, stream)
            else:
                await stream.write(encode_frame(hello_reply=reply))

    async def _exchange(self, lane: Lane, hello: Hello, reply: HelloReply, stream: FrameStream) -> None:
        incoming = _Incoming(hello.source, SendQueue(self._local.limits))
        key = (lane, hello.source)
        self._incoming[key] = incoming
        try:
            await stream.write(encode_frame(hello_reply=reply))
            traffic = self._local.traffic.of(hello.source)
            await exchange(stream, incoming.outbox, hello.source, hello.target, self._local, traffic)
        finally:
            # A newer stream of the same sender may have taken the place.
            if self._incoming.get(key) is incoming:
                del self._incoming[key]

    async def _letter(self, request: bytes, caller: PeerCaller) -> bytes:
        """A message that is not answered here: its answer, if any, comes as a letter of its own."""
        with self._guarded(caller) as names:
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

    async def _install_snapshot(self, stream: FrameStream, caller: PeerCaller) -> None:
        with self._guarded(caller) as names:
            await stream.write(await self._snapshots.serve(stream, names))

    async def _describe(self, request: bytes, caller: PeerCaller) -> bytes:
        with self._guarded(caller) as names:
            return await answer_describe(request, self._local.receiver, names)

    async def _ask(self, request: bytes, caller: PeerCaller) -> bytes:
        with self._guarded(caller) as names:
            return await answer_ask(request, self._local.receiver, names)

    def _deny(self, caller: PeerCaller, error: PermissionDenied) -> None:
        """Say so once for each host and reason: whoever is refused tries again every second."""
        denied = caller.address.rpartition(":")[0], str(error)
        if denied not in self._denied:
            if len(self._denied) >= _MOST_DENIED:
                self._denied.clear()
            self._denied.add(denied)
            _log.warning("who is no member was refused", extra={"address": denied[0], "reason": denied[1]})

    @contextmanager
    def _guarded(self, caller: PeerCaller) -> Iterator[frozenset[str] | None]:
        """Give the names in the caller's certificate; turn what goes wrong into a status for the caller and
        a line here.
        """
        try:
            yield certified_names(self._local.credentials, caller)
        except PermissionDenied as error:
            self._deny(caller, error)
            raise StatusError(PERMISSION_DENIED, str(error)) from error
        except BadMessage as error:
            _log.warning("refused what %s sent: %s", caller.address, error)
            raise StatusError(INVALID_ARGUMENT, str(error)) from error
        except CALL_FAILURES as error:
            _log.debug("call of %s is over: %s", caller.address, describe_failure(error))
            raise StatusError(UNAVAILABLE, describe_failure(error)) from error
        except Exception as error:
            _log.exception("call of %s failed", caller.address)
            raise StatusError(INTERNAL, describe_failure(error)) from error
