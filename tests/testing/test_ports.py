"""A port that a test chose stays the test's, also while its node is dead."""

from __future__ import annotations

import socket

from connect_kv.testing.ports import free_ports


def test_chosen_ports_are_none_that_the_system_gives_away() -> None:
    chosen = free_ports(300)
    assert len(set(chosen)) == 300
    for _ in range(20):
        with socket.socket() as given:
            given.bind(("127.0.0.1", 0))
            assert given.getsockname()[1] > max(chosen)
