"""How much goes to each other member and comes from it, and how long a heartbeat takes there and back.

Plain numbers, for whoever shows them; nothing here decides anything.
"""

from __future__ import annotations

from bisect import bisect_left

ROUND_TRIP_SECONDS = tuple(0.0001 * 2**step for step in range(14))
"""Upper bounds of what round trips are counted by."""


class PeerTraffic:
    """What passed between this member and another one."""

    __slots__ = (
        "_asked",
        "received_bytes",
        "round_trip_seconds",
        "round_trips",
        "send_failures",
        "sent_bytes",
        "streams",
    )

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
        self.send_failures = 0
        """Messages that were dropped, and letters that did not arrive."""
        self.streams = 0
        """Open now, in either direction."""
        self.round_trips = [0] * (len(ROUND_TRIP_SECONDS) + 1)
        """By the bound they stayed below; the last are longer than all of them."""
        self.round_trip_seconds = 0.0
        """Seconds of all round trips together."""
        self._asked: tuple[int, float] | None = None

    def heartbeat(self, round: int, now: float) -> None:
        """A heartbeat leaves. While one is unanswered, those after it are not measured."""
        if self._asked is None or round < self._asked[0] or now > self._asked[1] + ROUND_TRIP_SECONDS[-1]:
            self._asked = round, now

    def answered(self, round: int, now: float) -> None:
        """The answer to one came."""
        if self._asked is not None and self._asked[0] == round:
            seconds = now - self._asked[1]
            self._asked = None
            self.round_trips[bisect_left(ROUND_TRIP_SECONDS, seconds)] += 1
            self.round_trip_seconds += seconds


class Traffic:
    """All other members that there were, by id."""

    def __init__(self) -> None:
        self.peers: dict[int, PeerTraffic] = {}

    def of(self, node_id: int) -> PeerTraffic:
        """What is known of that one."""
        found = self.peers.get(node_id)
        if found is None:
            found = self.peers[node_id] = PeerTraffic()
        return found
