"""Reading through pending changes is reading what will be written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay, merge

KEYS = st.binary(max_size=2).map(lambda raw: bytes(byte % 5 for byte in raw))
PENDING = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2)), max_size=12)


@pytest.mark.long
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    below=st.dictionaries(KEYS, st.binary(max_size=2), max_size=12),
    early=PENDING,
    late=PENDING,
    start=KEYS,
    stop=st.none() | KEYS,
    reverse=st.booleans(),
)
def test_an_overlay_reads_as_the_engine_will_after_the_batch(
    below: dict[bytes, bytes],
    early: list[tuple[bytes, bytes | None]],
    late: list[tuple[bytes, bytes | None]],
    start: bytes,
    stop: bytes | None,
    reverse: bool,
) -> None:
    engine = MemoryDisk(random.Random(1)).open(Path("/db"))
    engine.batch(dict(below)).write(sync=False)
    overlay = Overlay(engine)
    seen = []
    for changes in (early, late):  # the second round changes what was iterated before
        for key, value in changes:
            if value is None:
                overlay.delete(key)
            else:
                overlay.put(key, value)
        seen = list(overlay.iterate(start, stop, reverse=reverse))
    read = {key: overlay.get(key) for key in [*below, *(key for key, _ in early + late), start]}
    engine.batch(overlay.changes).write(sync=False)
    assert seen == list(engine.iterate(start, stop, reverse=reverse))
    assert read == {key: engine.get(key) for key in read}


def test_deleting_while_iterating_is_safe() -> None:
    engine = MemoryDisk(random.Random(1)).open(Path("/db"))
    engine.batch({b"%04d" % number: b"v" for number in range(0, 400, 2)}).write(sync=False)
    overlay = Overlay(engine)
    for number in range(1, 400, 2):
        overlay.put(b"%04d" % number, b"v")
    seen = []
    for key, _ in overlay.iterate(b"", None):
        seen.append(key)
        overlay.delete(key)
    assert seen == [b"%04d" % number for number in range(400)]
    assert list(overlay.iterate(b"", None)) == []


def test_many_pending_changes_are_read_a_page_at_a_time_in_both_directions() -> None:
    engine = MemoryDisk(random.Random(1)).open(Path("/db"))
    engine.batch({b"%03d" % number: b"old" for number in range(0, 300, 2)}).write(sync=False)
    overlay = Overlay(engine)
    for number in range(0, 300, 3):
        overlay.put(b"%03d" % number, b"new")
    keys = sorted({*range(0, 300, 2), *range(0, 300, 3)})
    expected = [(b"%03d" % number, b"old" if number % 3 else b"new") for number in keys]
    assert list(overlay.iterate(b"", None)) == expected
    assert list(overlay.iterate(b"", None, reverse=True)) == expected[::-1]


def test_sources_need_not_be_generators() -> None:
    assert list(merge(iter([(b"a", b"1")]), iter([(b"b", None), (b"c", b"2")]))) == [
        (b"a", b"1"),
        (b"c", b"2"),
    ]
