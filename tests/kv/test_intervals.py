"""The index of ranges against a list of them."""

import random

import pytest

from connect_kv.kv.intervals import IntervalIndex


@pytest.mark.parametrize("seed", range(20))
def test_stabbing_finds_exactly_the_ranges_that_hold_the_key(seed: int) -> None:
    rng = random.Random(seed)
    index: IntervalIndex[int] = IntervalIndex()
    held: list[tuple[bytes, bytes | None, int]] = []
    for item in range(400):
        if held and rng.random() < 0.4:
            gone = held.pop(rng.randrange(len(held)))
            index.remove(*gone)
        start = bytes([rng.randrange(40)])
        stop = None if rng.random() < 0.1 else bytes([rng.randrange(start[0] + 1, 42)])
        index.add(start, stop, item)
        held.append((start, stop, item))
        key = bytes([rng.randrange(45)])
        expected = {item for start, stop, item in held if start <= key and (stop is None or key < stop)}
        assert set(index.stab(key)) == expected
    for gone in held:
        index.remove(*gone)
    assert not index


def test_ten_thousand_prefixes_and_a_range_over_all_cost_little_per_key() -> None:
    index: IntervalIndex[int] = IntervalIndex()
    for number in range(10_000):
        index.add(b"user/%05d/" % number, b"user/%05d0" % number, number)
    index.add(b"\0", None, -1)
    for number in range(0, 10_000, 7):
        assert sorted(index.stab(b"user/%05d/x" % number)) == [-1, number]
