"""Records kept beside the database: what they may take, and that nobody sees a difference."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from connect_kv.kv.record_cache import ENTRY_BYTES, LARGEST_RECORD, Known, RecordCache
from connect_kv.kv.store import Attachments, MvccStore
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay


def known(size: int, version: int = 2) -> Known:
    return bytes(size), 1, version, 0


def test_the_keys_written_last_are_kept() -> None:
    recent = RecordCache(3 * (100 + ENTRY_BYTES))
    for number in range(100):
        recent.put(b"%d" % number, known(100))
        assert recent.get(b"%d" % number) == known(100)
    assert recent.get(b"90") is None
    assert recent.get(b"97") is not None


def test_a_key_that_is_written_again_and_again_takes_one_place() -> None:
    recent = RecordCache(3 * (100 + ENTRY_BYTES))
    recent.put(b"other", known(100))
    for version in range(100):
        recent.put(b"hot", known(100, version))
    assert recent.get(b"hot") == known(100, 99)
    assert recent.get(b"other") == known(100)


def test_a_record_that_grows_counts_as_what_it_has_become() -> None:
    recent = RecordCache(10_000)
    recent.put(b"other", known(100))
    for size in range(100, 60_000, 5_000):
        recent.put(b"key", known(size))
    recent.put(b"key", known(100))
    assert recent.get(b"other") is None


def test_a_large_record_is_not_kept_nor_what_it_replaced() -> None:
    recent = RecordCache()
    recent.put(b"key", known(100))
    recent.put(b"key", known(LARGEST_RECORD + 1))
    assert recent.get(b"key") is None


def test_what_is_discarded_leaves_its_room() -> None:
    recent = RecordCache(3 * (100 + ENTRY_BYTES))
    recent.put(b"other", known(100))
    for _ in range(100):
        recent.put(b"key", known(100))
        recent.discard(b"key")
        assert recent.get(b"key") is None
    assert recent.get(b"other") is not None


KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
VALUES = st.one_of(st.none(), st.binary(max_size=40))
NO_LEASES = cast(Attachments, None)
STEPS = st.lists(st.tuples(st.sampled_from(["put", "delete", "finish", "load"]), KEYS, VALUES), max_size=60)


@given(STEPS)
def test_a_store_answers_the_same_however_little_it_keeps(
    steps: list[tuple[str, bytes, bytes | None]],
) -> None:
    outcomes = [_played(steps, room) for room in (1 << 20, 2 * ENTRY_BYTES, 0)]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def _played(steps: list[tuple[str, bytes, bytes | None]], room: int) -> object:
    """What the steps answered, and what is in the database afterwards."""
    overlay = Overlay(MemoryDisk(random.Random(1)).open(Path("state")))
    tested = MvccStore(NO_LEASES, RecordCache(room))
    answers: list[bytes | None] = []
    for step, key, value in steps:
        if step == "put":
            answers.append(tested.put(overlay, key, value, 0))
        elif step == "delete":
            answers.append(tested.delete(overlay, key))
        elif step == "finish":
            tested.finish()
        else:
            tested.load(tested.state)
        answers.append(tested.get(overlay, key))
    return answers, overlay.changes, tested.state
