"""Lease ids that are granted again, for a shorter or a longer time: when their keys go, on both sides."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from tests.differential.target import Failed, Target

LONG, SHORT = 40, 3
"""Seconds."""
LATE = 3.0
"""Seconds after which a key outlives its lease by more than the timers' intervals."""


@dataclass(frozen=True, slots=True)
class Life:
    """One lease and its key."""

    id: int
    ttls: tuple[int, ...]
    """Granted one after the other, each revoked before the next; 0: waited for until it ends by itself."""


LIVES = [
    Life(7, (LONG, SHORT)),
    Life(-5, (LONG, SHORT)),
    Life(8, (SHORT, LONG)),
    Life(9, (LONG, SHORT, LONG, SHORT)),
    Life(10, (SHORT, 0, LONG)),
    Life(11, (SHORT, 0, SHORT)),
]


@dataclass(slots=True)
class Told:
    """What became of a lease that was granted again."""

    life: Life
    granted: float
    """When it was asked for the last time."""
    gone: float | None = None
    """Seconds from then until its key was missed."""
    remaining: list[int] = field(default_factory=list)
    """What TimeToLive said, while there was the key."""


def grant_again(target: Target, seconds: float) -> list[Told]:
    """Live all lives on that server, then look for so long."""
    ended_alone = [life for life in LIVES if 0 in life.ttls]
    for life in LIVES:
        _live(target, life, life.ttls[: life.ttls.index(0)] if life in ended_alone else life.ttls[:-1])
    deadline = time.monotonic() + SHORT + LATE
    while any(_holds(target, life) for life in ended_alone):
        assert time.monotonic() < deadline, f"{target.name}: a lease does not end"
        time.sleep(0.1)
    told = []
    for life in LIVES:
        told.append(Told(life, time.monotonic()))
        _grant(target, life, life.ttls[-1])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for one in told:
            _look(target, one)
        time.sleep(0.05)
    for life in LIVES:
        target.call(lease.LeaseRevokeRequest(ID=life.id))
    return told


def _live(target: Target, life: Life, ttls: tuple[int, ...]) -> None:
    for number, ttl in enumerate(ttls):
        _grant(target, life, ttl)
        if 0 not in life.ttls or number < len(ttls) - 1:
            assert not isinstance(target.call(lease.LeaseRevokeRequest(ID=life.id)), Failed)


def _grant(target: Target, life: Life, ttl: int) -> None:
    granted = target.call(lease.LeaseGrantRequest(ID=life.id, TTL=ttl))
    assert isinstance(granted, lease.LeaseGrantResponse), granted
    assert life.id == granted.ID
    assert ttl == granted.TTL
    assert not isinstance(target.call(kv.PutRequest(key=_key(life), lease=life.id)), Failed)


def _look(target: Target, one: Told) -> None:
    if one.gone is not None:
        return
    if not _holds(target, one.life):
        one.gone = time.monotonic() - one.granted
        return
    answer = target.call(lease.LeaseTimeToLiveRequest(ID=one.life.id, keys=True))
    assert isinstance(answer, lease.LeaseTimeToLiveResponse), answer
    if answer.keys:
        one.remaining.append(answer.TTL)


def _holds(target: Target, life: Life) -> bool:
    answer = target.call(kv.RangeRequest(key=_key(life)))
    assert isinstance(answer, kv.RangeResponse), answer
    return bool(answer.kvs)


def _key(life: Life) -> bytes:
    return b"again/%d" % life.id
