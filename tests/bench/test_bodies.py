"""The load of many messages: each is sent once, and no call is lost unseen."""

import asyncio

import pytest

from benchmarks.bodies import CallsFailed, closed_loop
from connect_kv.http2.calls import Call
from connect_kv.http2.listener import Http2Server

PATH = "/t.T/Put"


def answering(calls: list[Call], seen: list[bytes], most: list[int]) -> None:
    most.append(len(calls))
    for call in calls:
        seen.append(call.message)
        call.reply(b"done")


async def served(seen: list[bytes], most: list[int]) -> tuple[Http2Server, str]:
    server = Http2Server({PATH: lambda calls: answering(calls, seen, most)})
    return server, f"127.0.0.1:{await server.listen('127.0.0.1', 0)}"


async def load(messages: list[bytes], callers: int) -> tuple[list[bytes], list[float], int]:
    seen: list[bytes] = []
    most: list[int] = []
    server, address = await served(seen, most)
    try:
        took = await closed_loop([address], PATH, iter(messages), callers=callers)
    finally:
        await server.stop(0)
    return seen, took, max(most)


@pytest.mark.parametrize("callers", [1, 10, 250])
def test_every_message_is_sent_once_and_no_more_at_a_time_than_there_are_callers(callers: int) -> None:
    messages = [b"%d" % number for number in range(1000)]
    seen, took, most = asyncio.run(load(messages, callers))
    assert sorted(seen) == sorted(messages)
    assert len(took) == 1000
    assert took == sorted(took)
    assert all(each > 0 for each in took)
    assert most <= callers


def test_fewer_messages_than_callers_end_as_well() -> None:
    seen, took, _ = asyncio.run(load([b"one", b"two"], 300))
    assert sorted(seen) == [b"one", b"two"]
    assert len(took) == 2


def test_a_server_that_goes_fails_the_load() -> None:
    async def check() -> None:
        server = Http2Server({PATH: lambda calls: None})
        address = f"127.0.0.1:{await server.listen('127.0.0.1', 0)}"
        loading = asyncio.create_task(closed_loop([address], PATH, iter([b"one"]), callers=1))
        async with asyncio.timeout(60):
            while not server.unanswered:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.001)
        await server.stop(0)
        with pytest.raises(CallsFailed, match=address):
            await loading

    asyncio.run(check())
