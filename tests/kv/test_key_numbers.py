"""Numbers kept beside the database: what they may take, and that nobody sees a difference."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.kv import packed_numbers
from connect_kv.kv.key_numbers import ABSENT, LARGEST_KEY, KeyNumbers, created_and_version, numbers
from connect_kv.kv.packed_numbers import PackedNumbers
from connect_kv.kv.store import Attachments, MvccStore
from connect_kv.rpc.kv_pb2 import KeyValue
from connect_kv.storage.engine import Engine
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay


@given(st.integers(1, (1 << 63) - 1), st.integers(1, (1 << 63) - 1))
def test_two_numbers_in_one(created: int, version: int) -> None:
    packed = numbers(created, version)
    assert packed != ABSENT
    assert created_and_version(packed) == (created, version)
    if version < (1 << 63) - 1:
        assert created_and_version(packed + 1) == (created, version + 1)


def test_every_key_is_found_wherever_it_has_gone() -> None:
    kept = KeyNumbers(young_keys=100)
    for number in range(5000):
        kept.set(b"%d" % number, numbers(number + 1, 1))
        kept.set(b"hot", numbers(7, number + 1))
    for number in range(5000):
        assert kept.get(b"%d" % number) == numbers(number + 1, 1)
    assert kept.get(b"hot") == numbers(7, 5000)
    assert kept.get(b"other") is None
    kept.clear()
    assert kept.get(b"1") is None


def test_the_newest_numbers_are_found_also_while_older_ones_leave() -> None:
    kept = KeyNumbers(young_keys=4)
    newest: dict[bytes, int] = {}
    rng = random.Random(1)
    for step in range(20_000):
        key = b"%d" % rng.randrange(40)
        newest[key] = ABSENT if rng.random() < 0.2 else numbers(step + 1, 1)
        kept.set(key, newest[key])
        asked = b"%d" % rng.randrange(40)
        found = kept.get(asked)
        # That a key was deleted may be forgotten: then it is read, and is not there.
        assert found == newest.get(asked) or (found is None and not newest.get(asked))


def test_a_store_that_was_empty_knows_what_does_not_exist() -> None:
    kept = KeyNumbers(young_keys=2)
    kept.complete = True
    assert kept.get(b"a") == ABSENT
    for number in range(100):
        kept.set(b"%d" % number, numbers(1, 1))
        kept.set(b"%d" % number, ABSENT)
    assert [kept.get(b"%d" % number) for number in range(101)] == [ABSENT] * 101


def test_all_is_forgotten_once_there_is_too_much() -> None:
    kept = KeyNumbers(young_keys=16, most_keys=1000)
    kept.complete = True
    kept.leases[b"0"] = 7
    most = 0
    for number in range(200_000):
        kept.set(b"%d" % number, numbers(1, 1))
        most = max(most, kept._packed._entries)
    assert kept.get(b"0") is None
    assert not kept.complete
    assert not kept.leases
    assert most < 100_000  # each of its tables has a few entries before it is asked whether there may be more


def test_a_large_key_is_not_kept_itself() -> None:
    kept = KeyNumbers()
    key = b"k" * (LARGEST_KEY + 1)
    kept.set(key, numbers(5, 6))
    assert kept.get(key) == numbers(5, 6)
    assert not kept._young


def test_keys_whose_hashes_share_a_table_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the first of the two hashes were one of eight, and 0 among them."""
    monkeypatch.setattr(packed_numbers, "hash", lambda key: _weak(key), raising=False)
    kept = PackedNumbers(1000)
    for number in range(300):
        assert kept.set([(b"%d" % number, numbers(number + 1, 1))])
    for number in range(0, 300, 3):
        assert kept.set([(b"%d" % number, ABSENT)])
    for number in range(300, 400):
        assert kept.set([(b"%d" % number, numbers(number + 1, 1))])
    for number in range(400):
        expected = numbers(number + 1, 1) if number % 3 or number >= 300 else None
        assert (kept.get(b"%d" % number) or None) == expected
    assert kept.get(b"400") is None


def _weak(key: bytes) -> int:
    return int(key) % 8 << 12 if len(key) < 8 else int.from_bytes(key, "big") & 0xFFFF_FFFF_FFFF


@pytest.mark.long
def test_keys_that_come_and_go_take_no_more_and_more_room() -> None:
    kept = PackedNumbers(1 << 40)
    for number in range(500_000):
        kept.set([(b"%d" % number, numbers(1, 1))])
        kept.set([(b"%d" % number, ABSENT)])
    assert sum(map(len, kept._tables)) <= 4096 * 16 * 4


KEYS = st.sampled_from([b"a", b"b", b"c", b"d" * (LARGEST_KEY + 1)])
VALUES = st.one_of(st.none(), st.binary(max_size=40))
LEASES = st.sampled_from([None, 0, 7, 8])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put all", "delete", "finish", "load"]), KEYS, VALUES, LEASES, st.booleans()
    ),
    max_size=60,
)
Step = tuple[str, bytes, bytes | None, int | None, bool]


class Attached:
    """What a lease table is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes, int]] = []

    def attach(self, changes: object, key: bytes, lease: int) -> None:
        self.told.append(("attach", key, lease))

    def detach(self, changes: object, key: bytes, lease: int) -> None:
        self.told.append(("detach", key, lease))


class Eager:
    """Somebody who wants to know of every change what was before."""

    prev_kv_watches = 1


@given(STEPS)
def test_a_store_answers_the_same_however_little_it_keeps(steps: list[Step]) -> None:
    outcomes = [
        _played(steps, KeyNumbers(young_keys, most_keys))
        for young_keys, most_keys in ((1 << 17, 1 << 20), (1, 1 << 20), (1, 1), (1, 0))
    ]
    assert outcomes[0] == outcomes[1] == outcomes[2] == outcomes[3]


def _played(steps: list[Step], kept: KeyNumbers) -> object:
    """What the steps answered, whom they told, and what is in the database afterwards."""
    overlay = Overlay(_engine())
    attached = Attached()
    tested = MvccStore(cast(Attachments, attached), Eager(), kept)
    answers: list[object] = []
    for step, key, value, lease, previous in steps:
        if step == "put":
            answers.append(tested.put(overlay, key, value, lease, previous=previous))
        elif step == "put all":
            if not tested.written:
                tested.put_all(overlay, [(key, value or b""), (b"beside", b"")])
        elif step == "delete":
            answers.append(tested.delete(overlay, key))
        elif step == "finish":
            tested.finish()
        elif not tested.written:
            tested.load(tested.state)
        record = tested.get(overlay, key)
        answers.append(record)
        if record is not None:
            assert KeyValue.FromString(record).version > 0
    return answers, dict(overlay.changes), attached.told, tested.take_changes(), tested.state


def _engine() -> Engine:
    return MemoryDisk(random.Random(1)).open(Path("state"))
