"""One established stream, as either side sees it: write what waits, hand over what comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from enum import Enum
from typing import Protocol

import grpc

from connect_kv.peer_protocol import Loss, PeerMessage
from connect_kv.transport.codec import BadMessage, Frame, decode_frame
from connect_kv.transport.send_queue import SendQueue
from connect_kv.transport.traffic import PeerTraffic


class Lane(Enum):
    """The two ordered streams between members; the value is the method's name."""

    APPEND = "AppendEntries"
    """Appends and heartbeats, and their answers the other way."""
    FORWARD = "Forward"
    """Proposals and read barriers, and their answers the other way."""


class StreamBroken(ConnectionError):
    """The stream is over; says why."""


class PermissionDenied(ConnectionError):
    """Who connected is no member of this cluster; says how that shows."""


RPC_FAILURES = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError, OSError)
"""How gRPC says that a call is over: by its status, or that it was over before the operation."""


class ByteStream(Protocol):
    """What a client's call and a server's context have in common."""

    async def read(self) -> object:
        """The next frame, or `grpc.aio.EOF`."""

    async def write(self, frame: bytes, /) -> None:
        """Returns when there is room for more."""


async def read_frame(stream: ByteStream) -> Frame:
    """The next frame. Raises StreamBroken at the end and BadMessage."""
    return decode_frame(await _next(stream))


async def _next(stream: ByteStream) -> bytes:
    data = await stream.read()
    if not isinstance(data, bytes):
        raise StreamBroken("ended by the other side")
    return data


async def exchange(
    stream: ByteStream,
    outbox: SendQueue,
    source: int,
    target: int,
    receive: Callable[[PeerMessage], None],
    traffic: PeerTraffic,
) -> None:
    """Run both directions until one is over; always raises StreamBroken or BadMessage.

    Messages must be from `source` to `target`, as introduced at the head of the stream.
    """
    directions = (
        asyncio.create_task(_write(stream, outbox, traffic)),
        asyncio.create_task(_read(stream, source, target, receive, traffic)),
    )
    traffic.streams += 1
    # No TaskGroup: when this task is cancelled, the call under it fails as well, and a group that
    # holds a failure forgets the cancellation.
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [direction for direction in directions if direction.done()]
        for direction in directions:
            direction.cancel()
        traffic.streams -= 1
        await asyncio.gather(*directions, return_exceptions=True)
    for direction in ended:
        if not direction.cancelled() and (error := direction.exception()) is not None:
            if isinstance(error, RPC_FAILURES):
                raise StreamBroken(describe_failure(error)) from error
            raise error
    raise StreamBroken("cancelled")


async def _write(stream: ByteStream, outbox: SendQueue, traffic: PeerTraffic) -> None:
    while True:
        frame = await outbox.take()
        await stream.write(frame)
        traffic.sent_bytes += len(frame)


async def _read(
    stream: ByteStream,
    source: int,
    target: int,
    receive: Callable[[PeerMessage], None],
    traffic: PeerTraffic,
) -> None:
    while True:
        data = await _next(stream)
        traffic.received_bytes += len(data)
        for message in decode_frame(data).messages:
            check_ends(message, source, target)
            receive(message)


def check_ends(message: PeerMessage, source: int, target: int) -> None:
    """Nobody speaks for another member. Raises BadMessage."""
    if message.source != source or message.target != target:
        raise BadMessage(
            f"a message from {message.source:x} to {message.target:x} "
            f"where only {source:x} speaks to {target:x}"
        )


_NO_CONNECTION = re.compile(
    r"failed to connect to all addresses; last error: \w+: "
    r"(?:ipv[46]:)?(?P<address>\S+): (?:.*: )?(?P<reason>[^:]+)$"
)
"""The library's long account of a connection that was refused."""


def describe_failure(error: BaseException) -> str:
    """One line for logs."""
    if isinstance(error, grpc.aio.AioRpcError):
        details = (error.details() or "").removesuffix(": OK")  # what it adds to the account of TLS
        if found := _NO_CONNECTION.match(details):
            return f"{error.code().name}: {found['address']}: {found['reason']}"
        return f"{error.code().name}: {details}"
    return str(error) or type(error).__name__


def failed_in_tls(error: BaseException) -> bool:
    """Whether the two sides do not trust each other, or only one of them speaks TLS."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return False
    if error.code() is grpc.StatusCode.PERMISSION_DENIED:
        return True
    return "handshake failed" in (error.details() or "").lower()


def loss_of(error: BaseException) -> Loss:
    """What a failed call tells of the member at its other end."""
    if isinstance(error, grpc.aio.AioRpcError):
        details = (error.details() or "").lower()
        if "connection refused" in details:
            return Loss.REFUSED
        if "dns resolution failed" in details or "errors resolving" in details:
            return Loss.UNRESOLVED
    return Loss.SILENT
