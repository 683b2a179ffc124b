"""Calls that reached this process but wait within gRPC, and how many of them to refuse.

The library hands calls over one at a time, as fast as the event loop takes them: under more load
than the loop can serve they wait there, unseen by any handler, and cost memory. They are counted as
those that the library has begun (its channelz statistics) without those that were handed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # as grpcio-channelz does; it has no stubs

from connect_kv.interfaces import Clock

MOST_UNTAKEN = 4096
"""Of one member. Such a call takes about 25 kB, and some two thousand are served in a second."""
LOOK_SECONDS = 0.05
BUSY = 16
"""Calls between two looks: with fewer nothing waits, and asking the library (0.2 ms) can be spared."""
SETTLE_SECONDS = 1.0
"""How often it is asked all the same, to learn of calls that were given up."""
UNCERTAIN_SECONDS = 5.0


class Backlog:
    """Says how many calls to refuse, so that at most half of the bound waits after it was passed. A
    refusal takes 0.1 to 0.16 ms of processor time, which the library takes for
    any call; a put takes 0.28 on all members together.

    Calls that their clients give up while they wait are begun and never handed over. They are
    recognized, and forgotten, where hardly a call moves or the count falls below them, and at the latest
    after refusing for `UNCERTAIN_SECONDS`, which empties any real backlog.
    """

    def __init__(self, begun: Callable[[], int], clock: Clock, most: int = MOST_UNTAKEN) -> None:
        """`begun`: calls so far; `most`: that may wait."""
        self._begun = begun
        self._clock = clock
        self._most = most
        self.excess = 0
        """Calls to refuse; whoever refuses one takes it off."""
        self.taken = 0
        """Calls handed over so far; whoever takes one counts it."""
        self._taken_before = 0
        self._lost = 0
        self._looked_at = self._settled_at = clock.now()
        self._over_since: float | None = None
        self._unsettled = False
        """Whether calls came since it was last known how many were given up."""

    async def watch(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Count, and decide."""
        now = self._clock.now()
        moved, late = self.taken - self._taken_before, now - self._looked_at > 2 * LOOK_SECONDS
        self._taken_before, self._looked_at = self.taken, now
        # What waits is taken at once: if hardly a call was, none waits. While refusing, none may move.
        idle = not late and (not moved if self.excess else moved < BUSY)
        if idle and not self.excess and (not self._unsettled or now - self._settled_at < SETTLE_SECONDS):
            self._unsettled = self._unsettled or moved > 0
            return
        if idle:
            self._unsettled, self._settled_at = False, now
        else:
            self._unsettled = True
        self._decide(self._begun() - self.taken, idle=idle, now=now)

    def _decide(self, untaken: int, *, idle: bool, now: float) -> None:
        if idle:
            self._lost = untaken
        self._lost = min(self._lost, untaken)
        waiting = untaken - self._lost
        if waiting <= (self._most // 2 if self.excess else self._most):
            self.excess, self._over_since = 0, None
            return
        if self._over_since is None:
            self._over_since = now
        if now - self._over_since > UNCERTAIN_SECONDS:
            self.excess, self._over_since, self._lost = 0, None, untaken
        else:
            self.excess = waiting - self._most // 2


def calls_begun() -> Callable[[], int]:
    """Counts the calls that came to the server that this process created last, with channelz enabled."""
    server, first = 0, 0
    while True:
        page = json.loads(cygrpc.channelz_get_servers(first))
        ids = [int(one["ref"]["serverId"]) for one in page.get("server", [])]
        server = max(ids, default=server)
        if page.get("end") or not ids:
            break
        first = server + 1

    def begun() -> int:
        found = json.loads(cygrpc.channelz_get_server(server))["server"]
        return int(found["data"].get("callsStarted", 0))

    return begun
