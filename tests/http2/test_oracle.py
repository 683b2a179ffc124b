"""Random connections: ours makes of them what the package h2 does, and survives what nobody would send.

CONNECT_KV_HTTP2_CONNECTIONS says how many of each; scripts/fuzz-http2 goes on until it is stopped.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http2 import oracle

pytestmark = pytest.mark.long

CONNECTIONS = int(os.environ.get("CONNECT_KV_HTTP2_CONNECTIONS", 5000))


def test_random_connections_mean_the_same_to_h2() -> None:
    ends = Counter(oracle.check(seed) for seed in range(CONNECTIONS))
    assert ends["all"] > CONNECTIONS / 2
    assert len(ends) > 20


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.randoms(use_true_random=False))
def test_connections_that_shrink_mean_the_same_to_h2(rng: random.Random) -> None:
    oracle.check(0, rng)


def test_damaged_connections_are_survived() -> None:
    for seed in range(CONNECTIONS):
        oracle.survive(seed)


def test_a_difference_is_found() -> None:
    """The comparison itself: a fault planted in one of the two shows."""

    class Deaf(oracle.Ours):
        def receive(self, data: bytes) -> oracle.Told:
            return super().receive(data.replace(b"\0\0\0\0\0\x0a", b"\0\0\0\0\0\x0b"))

    real, oracle.Ours = oracle.Ours, Deaf  # type: ignore[misc]
    try:
        with pytest.raises(oracle.Difference):
            Counter(oracle.check(seed) for seed in range(500))
    finally:
        oracle.Ours = real  # type: ignore[misc]
