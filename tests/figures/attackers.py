"""Processes that abuse a member: ``python -m tests.figures.attackers KIND HOST:PORT COUNT SECONDS [TOKEN]``.

Each prints READY once it does what it is for, and ends by itself. They give way to everybody else on the
machine (nice 19): who attacks has machines of his own.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from connect_kv.http2 import frames
from connect_kv.http2.channel import Channel
from connect_kv.http2.hpack import literal
from connect_kv.http2.metadata import StatusError
from connect_kv.rpc.auth_pb2 import AuthenticateRequest
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.rpc.watch_pb2 import WatchCreateRequest, WatchRequest

IN_FLIGHT = 200
NAMES = 20_000
STREAMS = 50
"""Of one connection."""


def hello() -> bytes:
    """The first record of a handshake, as the library makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


def connected(address: str, receive: int = 0) -> socket.socket:
    """`receive`: bytes that the system takes before they are read."""
    host, _, port = address.rpartition(":")
    one = socket.socket()
    if receive:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    one.settimeout(10)
    one.connect((host, int(port)))
    return one


def half_open(address: str, count: int, seconds: float, token: str) -> None:
    """Connections that say nothing, three bytes, half of a first record, or all of it, and no more."""
    whole = hello()
    said = [b"", whole[:3], whole[: len(whole) // 2], whole]
    kept = []
    until = time.monotonic() + seconds
    for number in range(count):
        with suppress(OSError):
            one = connected(address)
            one.sendall(said[number % len(said)])
            kept.append(one)
        if number == count // 10:
            print("READY", flush=True)
        if time.monotonic() > until:
            print(f"{number} of {count} in {seconds:g} s", flush=True)
            return
    time.sleep(max(0.0, until - time.monotonic()))
    print(f"{count} connections", flush=True)


def wrong_logins(address: str, count: int, seconds: float, token: str) -> None:
    """Passwords of 20,000 users, of whom there are few, as fast as they are answered."""

    async def main() -> None:
        host, _, port = address.rpartition(":")
        numbers, until = iter(range(count)), time.monotonic() + seconds
        answered: dict[int, int] = {}

        async def guess(channel: Channel) -> None:
            for number in numbers:
                if time.monotonic() > until:
                    return
                request = AuthenticateRequest(name=f"user-{number % NAMES}", password=f"guess-{number}")
                try:
                    await channel.unary("/etcdserverpb.Auth/Authenticate", request.SerializeToString())
                except StatusError as refused:
                    answered[refused.code] = answered.get(refused.code, 0) + 1

        async with await Channel.connect(host, int(port)) as channel:
            print("READY", flush=True)
            await asyncio.gather(*(guess(channel) for _ in range(IN_FLIGHT)))
        print(f"{sum(answered.values())} wrong logins, by code: {answered}", flush=True)

    asyncio.run(main())


def _call(path: str, number: int, token: str, message: bytes) -> bytes:
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"t"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"token", token.encode()),
    ]  # fmt: skip
    block = b"".join(literal(*one) for one in fields)
    return frames.headers(number, block, 0) + frames.message_frame(number, message, 0)


def _never_reading(address: str, count: int, seconds: float, calls: Callable[[int], bytes]) -> None:
    """Connections with so many calls each, whose answers nobody reads: windows are wide, and sockets full."""
    wide = frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW})
    begin = frames.PREFACE + wide + frames.window_update(0, frames.LARGEST_WINDOW - frames.DEFAULT_WINDOW)
    kept = []
    until = time.monotonic() + seconds
    for _ in range(count):
        with suppress(OSError):
            one = connected(address, 4096)
            one.sendall(begin + b"".join(calls(2 * number + 1) for number in range(STREAMS)))
            kept.append(one)
    print("READY", flush=True)
    time.sleep(max(0.0, until - time.monotonic()))
    closed = 0
    for one in kept:
        error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        state = struct.unpack("B", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]
        closed += bool(error) or state != 1  # 1: TCP_ESTABLISHED
    print(f"{len(kept)} connections, of which the member ended {closed}", flush=True)


def watchers(address: str, count: int, seconds: float, token: str) -> None:
    """Watches of the key that is written."""
    request = WatchRequest(create_request=WatchCreateRequest(key=b"hot")).SerializeToString()
    _never_reading(
        address, count, seconds, lambda number: _call("/etcdserverpb.Watch/Watch", number, token, request)
    )


def answers(address: str, count: int, seconds: float, token: str) -> None:
    """Gets of a megabyte."""
    request = RangeRequest(key=b"large", serializable=True).SerializeToString()

    def call(number: int) -> bytes:
        return _call("/etcdserverpb.KV/Range", number, token, request) + frames.frame(
            frames.DATA, frames.END_STREAM, number, b""
        )

    _never_reading(address, count, seconds, call)


KINDS = {one.__name__: one for one in (half_open, wrong_logins, watchers, answers)}


if __name__ == "__main__":
    os.nice(19)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, kind, where, many, long, *tokens = sys.argv
    KINDS[kind](where, int(many), float(long), *tokens or [""])
