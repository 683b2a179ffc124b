"""Puts beside watches: many of the key that is written, and very many of keys that nobody writes."""

from __future__ import annotations

import asyncio
import sys

import grpc

from connect_kv.rpc import kv_pb2 as kv
from tests.figures.sides import Figures, Side, caller, channel, memory, processor, timed

PUTTERS = 50
IDLE_PER_STREAM = "500"
_VALUE = bytes(256)


async def hot_key(side: Side, watches: int, seconds: float) -> Figures:
    """Puts of one key by many callers, alone and with many watches of it."""
    async with channel(side) as connection:
        await puts(connection, 1.0)
        alone, _ = await puts(connection, seconds)
        process = await watchers(side, str(watches), "hot")
        assert process.stdin is not None
        assert process.stdout is not None
        watched, last = await puts(connection, seconds)
        process.stdin.write(f"{last}\n".encode())
        behind = await timed(process.stdout.readline)
        await process.wait()
    return {
        f"puts/s of one key, {PUTTERS} callers": f"{alone:,.0f}",
        f"the same with {watches:,} live watches of it": f"{watched:,.0f}",
        "until every watch had seen the last of these puts, s": f"{behind:.1f}",
    }


async def idle_watches(side: Side, watches: int, seconds: float) -> Figures:
    """What watches cost that hear of nothing."""
    async with channel(side) as connection:
        await puts(connection, 1.0)
        free = await weighed(side, connection, seconds)
        before = memory(side)[0]
        process = await watchers(side, str(watches), "idle/%d", IDLE_PER_STREAM)
        after = memory(side)[0]
        burdened = await weighed(side, connection, seconds)
        process.kill()
        await process.wait()
    return {
        f"memory of one of {watches:,} idle watches, KiB": f"{(after - before) * 1024 / watches:.1f}",
        "puts/s of another key, before them / with them": f"{free[0]:,.0f} / {burdened[0]:,.0f}",
        "processor time of such a put, us, before / with": f"{free[1]:.0f} / {burdened[1]:.0f}",
    }


async def weighed(side: Side, connection: grpc.aio.Channel, seconds: float) -> tuple[float, float]:
    """Puts/s, and microseconds of the server's processor time for each."""
    used = processor(side)
    rate, _ = await puts(connection, seconds)
    return rate, (processor(side) - used) / (rate * seconds) * 1e6


async def watchers(side: Side, *arguments: str) -> asyncio.subprocess.Process:
    """A process that watches, once it does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.figures.watchers", side.address, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"READY\n"
    return process


async def puts(connection: grpc.aio.Channel, seconds: float) -> tuple[float, int]:
    """Puts/s, and the last revision."""
    loop = asyncio.get_running_loop()
    call = caller(connection, "KV/Put")
    began = loop.time()
    done = last = 0

    async def putter() -> None:
        nonlocal done, last
        while loop.time() < began + seconds:
            answer = await call(kv.PutRequest(key=b"hot", value=_VALUE), timeout=60)
            done += 1
            last = max(last, answer.header.revision)

    await asyncio.gather(*(putter() for _ in range(PUTTERS)))
    return done / (loop.time() - began), last
