"""The connection that all calls to a member share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from connect_kv.transport.limits import TransportLimits
from connect_kv.transport.line import Line
from connect_kv.transport.wire import Answer, OutgoingStream, Serve


@dataclass(eq=False)
class FakeChannel:
    leaving: str = ""
    closed: bool = False

    async def unary(self, path: str, message: bytes, timeout: float = 1.0) -> bytes:
        raise NotImplementedError

    def stream(self, path: str) -> OutgoingStream:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeWire:
    """Connects once it may, or fails with what it was told."""

    limits: TransportLimits = field(default_factory=TransportLimits)
    made: list[FakeChannel] = field(default_factory=list)
    attempts: int = 0
    failure: OSError | None = None
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self, address: str) -> FakeChannel:
        self.attempts += 1
        await self.may.wait()
        if self.failure is not None:
            raise self.failure
        self.made.append(FakeChannel())
        return self.made[-1]

    async def listen(self, address: str, unary: Mapping[str, Answer], streams: Mapping[str, Serve]) -> int:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError


async def test_who_needs_it_at_the_same_time_waits_for_one_attempt() -> None:
    wire = FakeWire()
    line = Line("h:1", wire)
    waiting = [asyncio.create_task(line.up()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    wire.may.set()
    assert await waiting[1] is await waiting[2] is await line.up()
    assert wire.attempts == 1
    await line.close()
    assert wire.made[0].closed


async def test_all_who_wait_are_told_how_it_failed_and_the_next_tries_again() -> None:
    wire = FakeWire(failure=ConnectionRefusedError("no"))
    line = Line("h:1", wire)
    waiting = [asyncio.create_task(line.up()) for _ in range(2)]
    wire.may.set()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in told] == [ConnectionRefusedError] * 2
    wire.failure = None
    assert await line.up() is wire.made[0]
    assert wire.attempts == 2
    await line.close()


async def test_what_is_under_way_on_a_connection_that_leaves_may_end_well() -> None:
    wire = FakeWire()
    wire.may.set()
    line = Line("h:1", wire)
    first = await line.up()
    wire.made[0].leaving = "the server goes away"
    second = await line.up()
    assert second is not first
    assert not wire.made[0].closed
    wire.made[1].leaving = "the connection was lost"
    await line.up()
    assert [channel.closed for channel in wire.made] == [True, False, False]
    await line.close()
    assert all(channel.closed for channel in wire.made)


async def test_closing_ends_an_attempt() -> None:
    wire = FakeWire()
    line = Line("h:1", wire)
    waiting = asyncio.create_task(line.up())
    await asyncio.sleep(0)
    await line.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not wire.made
