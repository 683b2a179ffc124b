"""When a connection needs attention although nothing comes."""

from __future__ import annotations

import math
from enum import Enum

from connect_kv.http2.limits import Limits


class Due(Enum):
    """What is to be done now."""

    NOTHING = ""
    PING = "a sign of life is asked for"
    HANDSHAKE = "the connection was not greeted in time"
    PARTIAL = "the rest of a frame did not come in time"
    SILENT = "keepalive timeout: the peer gives no sign of life"
    UNREAD = "the peer does not read"
    IDLE = "the connection is idle"


class Lifetime:
    """Of one connection. The times are those of the clock whose `now` is passed in, in seconds."""

    __slots__ = ("_limits", "_opened", "_pinged", "greeted", "heard", "partial", "unused", "unwritable")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._opened = now
        self._pinged = math.inf
        self.greeted = False
        """The peer's first SETTINGS have come."""
        self.heard = now
        """When something came last."""
        self.partial = math.inf
        """Since when a frame is incomplete."""
        self.unwritable = math.inf
        """Since when the socket takes nothing."""
        self.unused = now
        """Since when there is no call, for all we know."""

    def _times(self) -> list[tuple[float, Due]]:
        limits = self._limits
        asked = self._pinged >= self.heard and self._pinged < math.inf
        times = [
            (self.partial + limits.partial, Due.PARTIAL),
            (self.unwritable + limits.unread, Due.UNREAD),
            (self._pinged + limits.keepalive_timeout, Due.SILENT)
            if asked
            else (self.heard + limits.keepalive, Due.PING),
        ]
        if not self.greeted:
            times.append((self._opened + limits.handshake, Due.HANDSHAKE))
        if limits.idle is not None:
            times.append((self.unused + limits.idle, Due.IDLE))
        return times

    def next_time(self) -> float:
        """When to ask `due` again, if nothing happens before."""
        return min(time for time, _ in self._times())

    def due(self, now: float) -> Due:
        """The first thing that is overdue."""
        time, what = min(self._times(), key=lambda one: one[0])
        if time > now:
            return Due.NOTHING
        if what is Due.PING:
            self._pinged = now
        return what
