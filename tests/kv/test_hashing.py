"""HashKV is that of etcd: the rule over any history, cleaned up or not, against a plain telling of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.kv import hashing, layout, revision
from connect_kv.kv.scan import Walk
from connect_kv.rpc.kv_pb2 import KeyValue
from tests.kv.conftest import Kv, finish, new_engine

Record = tuple[int, int, bytes, bytes | None]
"""main, sub, key, the encoded KeyValue or None for a deletion"""


def records(kv: Kv) -> Iterator[Record]:
    for key, record in kv.engine.iterate(*layout.history_bounds(0, 1 << 60)):
        main, sub = revision.unpack(key[1:])
        if record.startswith(layout.DELETED):
            yield main, sub, record[1:], None
        else:
            found = KeyValue.FromString(record)
            yield main, sub, found.key, found.SerializeToString()


def plainly(kv: Kv, last: int, compacted: int) -> int:
    """The rule word by word: CRC-32C over `key`, then keys and values of all but what is left out."""
    everything = [one for one in records(kv) if one[0] <= last]
    newest = {key: (main, sub) for main, sub, key, _ in everything}
    kept = {newest[key] for main, sub, key, value in everything if value and newest[key] == (main, sub)}
    checksum: int = google_crc32c.value(b"key")
    for main, sub, key, value in everything:
        if main <= compacted and kept and (main, sub) not in kept:
            continue
        if main == compacted and value is None:
            continue
        place = main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big")
        if value is None:
            place, value = place + b"t", KeyValue(key=key).SerializeToString()
        checksum = google_crc32c.extend(checksum, place + value)
    return checksum


@pytest.mark.long
@given(seed=st.integers(0, 1 << 30), changes=st.integers(1, 120), most=st.sampled_from([1, 3, 200_000]))
@settings(max_examples=120, deadline=None)
def test_any_history_is_hashed_by_the_rule_before_and_after_the_cleanup(
    seed: int, changes: int, most: int
) -> None:
    rng = random.Random(seed)
    kv = Kv(new_engine())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "MOST_LEFT_OUT", most)
        for _ in range(changes):
            key = b"k%d" % rng.randrange(1, 12)
            if rng.random() < 0.4:
                kv.delete(key, rng.choice([b"", key + b"\0", b"l"]))
            else:
                kv.put(
                    key, b"v" * rng.randrange(3), lease=rng.choice([0, 0, 7]) if 7 in kv.machine.leases else 0
                )
            if rng.random() < 0.02:
                kv.grant(7, 60)
        compacted = rng.randrange(1, kv.machine.revision + 1)
        kv.compact(compacted)
        for _ in range(2):
            for last in range(compacted + 1, kv.machine.revision + 1):
                wanted = plainly(kv, last, compacted)
                walk = hashing.etcd_history(kv.engine, last, compacted)
                assert ended(walk) == wanted
                if not kv.machine.cleanup_pending:
                    assert finish(kv.machine.hash_kv(last))[0] == wanted
            kv.clean()
    kv.machine.close()
    kv.engine.close()


def ended(walk: Walk[int]) -> int:
    while True:
        try:
            next(walk)
        except StopIteration as end:
            found: int = end.value
            return found


def test_the_cleanup_does_not_change_the_hash() -> None:
    """So members that stand at different points of it answer alike."""
    kv = Kv(new_engine())
    for number in range(400):
        kv.put(b"%d" % (number % 7))
    kv.delete(b"3")
    kv.compact(300)
    before = ended(hashing.etcd_history(kv.engine, kv.machine.revision, 300))
    kv.clean()
    assert ended(hashing.etcd_history(kv.engine, kv.machine.revision, 300)) == before
    kv.machine.close()
    kv.engine.close()
