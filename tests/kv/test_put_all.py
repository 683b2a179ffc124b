"""Many puts at once leave what the same puts leave one by one."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.kv import range_counts, scan
from connect_kv.kv.layout import Changes
from connect_kv.kv.store import MvccStore
from connect_kv.rpc.kv_pb2 import TxnRequest
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay
from tests.kv.conftest import Kv, finish, put_op

KEYS = st.sampled_from([b"a", b"b", b"b\0", b"\0", b"c" * 200])
PUTS = st.dictionaries(KEYS, st.binary(max_size=300))
STEPS = st.lists(st.tuples(PUTS, st.lists(st.tuples(KEYS, st.sampled_from([0, 7, -1])))), max_size=8)
"""Requests: puts together; then, one by one, keys put with a lease, or deleted (-1)."""


class Attached:
    """What a lease table is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes, int]] = []

    def attach(self, changes: Changes, key: bytes, lease: int) -> None:
        self.told.append(("attach", key, lease))

    def detach(self, changes: Changes, key: bytes, lease: int) -> None:
        self.told.append(("detach", key, lease))


@given(STEPS, st.integers(1, 3))
def test_together_or_one_by_one(
    requests: list[tuple[dict[bytes, bytes], list[tuple[bytes, int]]]], piece: int
) -> None:
    assert _played(requests, piece) == _played(requests, 0)


def _played(requests: list[tuple[dict[bytes, bytes], list[tuple[bytes, int]]]], piece: int) -> object:
    """All that can be told afterwards; with pieces of 0, each put by itself."""
    overlay = Overlay(MemoryDisk(random.Random(1)).open(Path("state")))
    attached = Attached()
    store = MvccStore(attached)
    for puts, others in requests:
        pairs = list(puts.items())
        if piece:
            for start in range(0, len(pairs), piece):
                store.put_all(overlay, pairs[start : start + piece])
        else:
            for key, value in pairs:
                store.put(overlay, key, value, 0)
        for key, lease in others:
            if lease < 0:
                store.delete(overlay, key)
            else:
                store.put(overlay, key, b"single", lease)
        store.finish()
    numbers = store.state, store.puts, store.deletes
    return dict(overlay.changes), store.take_changes(), attached.told, numbers


def test_keys_of_a_large_transaction_are_counted(kv: Kv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_counts, "STRETCH_KEYS", 3)
    monkeypatch.setattr(scan, "SLICE_WRITES", 4)
    for first in range(0, 60, 20):
        kv.txn(TxnRequest(success=[put_op(b"%03d" % number) for number in range(first, first + 20)]))
        for stop in (b"010", b"050", b"999"):
            expected = min(first + 20, int(stop))
            assert finish(kv.get(b"0", stop, count_only=True)).count == expected


def test_a_key_put_twice_in_one_transaction_has_two_versions(kv: Kv) -> None:
    """No member lets such a request in; one that is in the log is executed alike by all."""
    kv.txn(TxnRequest(success=[put_op(b"a", b"1"), put_op(b"b"), put_op(b"a", b"2")]))
    (found,) = finish(kv.get(b"a")).kvs
    assert (found.value, found.version) == (b"2", 2)
