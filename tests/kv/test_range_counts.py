"""Counts of ranges: added up from what earlier counts left behind, and never different from looking."""

from __future__ import annotations

import random
from collections.abc import Generator

import pytest

from connect_kv.kv import layout, range_counts, scan
from connect_kv.kv.layout import StoreState
from connect_kv.rpc.kv_pb2 import RangeRequest, TxnRequest
from connect_kv.storage.engine import View
from tests.kv.conftest import Kv, delete_op, put_op, range_op


def key_of(rng: random.Random) -> bytes:
    """With zero bytes in and behind it, which the index escapes."""
    return bytes(rng.choice(b"\x00\x01ab\xff") for _ in range(rng.randrange(1, 5)))


def bounds(rng: random.Random) -> tuple[bytes, bytes]:
    """No end stands for the one key."""
    return key_of(rng), rng.choice([key_of(rng), key_of(rng), b"\x00", b""])


def covered(keys: set[bytes], key: bytes, range_end: bytes) -> int:
    return sum(layout.covers(key, range_end, one) for one in keys)


class Reader:
    """A count that is under way, of the state at its beginning."""

    def __init__(self, kv: Kv, keys: set[bytes], rng: random.Random) -> None:
        self.view: View = kv.engine.view()
        state = StoreState.decode(self.view.get(layout.STATE))
        key, range_end = bounds(rng)
        self.expected = covered(keys, key, range_end)
        self.question = key, range_end
        self.walk = self._count(kv.machine._store.range_counts, state)
        self.found: int | None = None
        self.step()

    def _count(self, counting: range_counts.RangeCounts, state: StoreState) -> Generator[None, None, int]:
        with counting.reading(state.revision):
            yield
            return (yield from counting.count(self.view, *self.question, state))

    def step(self) -> bool:
        """Whether it has ended."""
        try:
            next(self.walk)
        except StopIteration as end:
            self.found = end.value
            self.view.close()
            return True
        return False


def write(kv: Kv, keys: set[bytes], rng: random.Random) -> None:
    key = key_of(rng)
    match rng.randrange(5):
        case 0:
            start, end = bounds(rng)
            if covered(keys, start, end) < 30:
                kv.delete(start, end)
                keys -= {one for one in keys if layout.covers(start, end, one)}
        case 1:
            kv.delete(key)
            keys.discard(key)
        case 2:
            start, end = bounds(rng)
            request = TxnRequest(
                success=[delete_op(key), put_op(key + b"+"), range_op(start, end, count_only=True)]
            )
            keys.discard(key)
            keys.add(key + b"+")
            found = kv.txn(request).txn.responses[2].response_range
            assert found.count == covered(keys, start, end)
        case _:
            kv.put(key)
            keys.add(key)


@pytest.mark.parametrize("seed", range(12))
def test_counts_while_keys_come_and_go(kv: Kv, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_counts, "STRETCH_KEYS", 3)
    monkeypatch.setattr(range_counts, "MOST_STRETCHES", 60)
    monkeypatch.setattr(scan, "SLICE_RECORDS", 4)
    rng = random.Random(seed)
    keys: set[bytes] = set()
    under_way: list[Reader] = []
    for round in range(1500):
        if rng.random() < 0.5 or round < 100:
            write(kv, keys, rng)
        if rng.random() < 0.3:
            under_way.append(Reader(kv, keys, rng))
        for reader in [one for one in under_way if rng.random() < 0.4]:
            if reader.step():
                under_way.remove(reader)
                assert reader.found == reader.expected, reader.question
        if round % 400 == 399 and not under_way:
            kv.restart()


async def test_a_second_count_looks_at_few_keys(kv: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_counts, "STRETCH_KEYS", 10)
    for number in range(1000):
        kv.put(b"%04d" % number)
    looked_at: list[bytes] = []
    real = scan.names

    def names(reader: View, *rest: object) -> object:
        for name in real(reader, *rest):  # type: ignore[arg-type]
            if name is not None:
                looked_at.append(name)
            yield name

    monkeypatch.setattr(scan, "names", names)
    assert (await kv.get(b"0100", b"0900", count_only=True)).count == 800
    assert len(looked_at) == 800
    kv.put(b"0500+")
    kv.delete(b"0555")
    kv.delete(b"0666")
    del looked_at[:]
    assert (await kv.get(b"0200", b"0805", count_only=True)).count == 604
    page = await kv.machine.range(RangeRequest(key=b"0300", range_end=b"0801", limit=10))
    assert page.count == 500
    assert len(looked_at) < 40


async def test_the_numbers_take_little_memory(kv: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no reader can need any more is forgotten."""
    monkeypatch.setattr(range_counts, "STRETCH_KEYS", 2)
    monkeypatch.setattr(range_counts, "MOST_STRETCHES", 50)
    for number in range(300):
        kv.put(b"%04d" % number)
        assert (await kv.get(b"0", b"9", count_only=True)).count == number + 1
    counting = kv.machine._store.range_counts
    assert len(counting._starts) <= 300 // 2 + 2
    assert not counting._recent
    assert not counting._readers


async def test_one_key_is_counted_too(kv: Kv) -> None:
    kv.put(b"a")
    assert (await kv.get(b"a", count_only=True)).count == 1
    assert (await kv.get(b"b", count_only=True)).count == 0
