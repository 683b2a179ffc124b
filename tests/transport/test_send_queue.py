"""The queue before a stream: bounded, joins what waits, and heartbeats do not stand behind appends."""

from __future__ import annotations

import pytest

from connect_kv.transport.limits import TransportLimits
from connect_kv.transport.send_queue import SendQueue

LIMITS = TransportLimits(max_batch_bytes=10, max_entry_bytes=10, queue_messages=4, queue_bytes=15)


async def test_waiting_frames_are_joined_up_to_a_batch() -> None:
    outbox = SendQueue(LIMITS)
    for frame in (b"aaaa", b"bbbb", b"cccc"):
        assert outbox.put(frame, urgent=False)

    assert outbox.pop() == b"aaaabbbb"
    assert outbox.pop() == b"cccc"


async def test_heartbeats_overtake_appends() -> None:
    outbox = SendQueue(LIMITS)
    outbox.put(b"appendappend", urgent=False)
    outbox.put(b"beat", urgent=True)

    assert outbox.pop() == b"beat"
    assert outbox.pop() == b"appendappend"


async def test_bytes_are_bounded_but_one_frame_always_fits() -> None:
    outbox = SendQueue(LIMITS)

    assert outbox.put(b"x" * 20, urgent=False)
    assert not outbox.put(b"y", urgent=False)
    assert outbox.put(b"beat", urgent=True)
    outbox.pop()
    outbox.pop()
    assert outbox.put(b"y", urgent=False)


async def test_count_is_bounded() -> None:
    outbox = SendQueue(LIMITS)
    for urgent in (True, False):
        assert [outbox.put(b"m", urgent=urgent) for _ in range(6)] == [True] * 4 + [False] * 2


async def test_frame_that_no_peer_takes_is_refused() -> None:
    assert not SendQueue(LIMITS).put(b"x" * 21, urgent=False)


async def test_closed_ends_whoever_takes() -> None:
    outbox = SendQueue(LIMITS)
    told: list[bool] = []
    outbox.watch(lambda: told.append(outbox.waits))
    outbox.put(b"lost", urgent=False)
    outbox.close()
    with pytest.raises(ConnectionError):
        outbox.pop()
    assert told == [True, True]


async def test_nothing_waits_when_all_was_taken_or_dropped() -> None:
    outbox = SendQueue(LIMITS)
    assert not outbox.waits
    assert outbox.pop() is None
    outbox.put(b"m", urgent=False)
    outbox.put(b"beat", urgent=True)
    outbox.clear()
    assert not outbox.waits
