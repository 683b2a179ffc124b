"""What is counted of the traffic between members."""

from __future__ import annotations

from connect_kv.transport.traffic import ROUND_TRIP_SECONDS, PeerTraffic


def test_a_round_trip_is_measured_from_a_heartbeat_to_its_own_answer() -> None:
    peer = PeerTraffic()
    peer.heartbeat(1, 10.0)
    peer.heartbeat(2, 10.1)
    peer.answered(2, 10.11)
    assert sum(peer.round_trips) == 0, "only the first is measured while it is unanswered"
    peer.answered(1, 10.003)
    assert sum(peer.round_trips) == 1
    assert peer.round_trips[ROUND_TRIP_SECONDS.index(0.0032)] == 1
    assert round(peer.round_trip_seconds, 6) == 0.003
    peer.answered(1, 11.0)
    assert sum(peer.round_trips) == 1, "an answer counts once"


def test_an_answer_that_never_comes_does_not_end_the_measuring() -> None:
    peer = PeerTraffic()
    peer.heartbeat(1, 10.0)
    peer.heartbeat(2, 12.0)
    peer.answered(2, 12.001)
    assert sum(peer.round_trips) == 1
    peer.heartbeat(3, 13.0)
    peer.heartbeat(1, 13.1)  # another term of its leadership counts from 1 again
    peer.answered(1, 15.0)
    assert peer.round_trips[-1] == 1, "longer than all bounds"
