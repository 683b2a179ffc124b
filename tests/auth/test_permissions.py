"""A request is allowed exactly if every key its range can hold is in a permission: a model of points."""

import os
import random

import pytest

from connect_kv.auth.permissions import FROM_KEY, RangeUnion, rights_of, usable
from connect_kv.rpc.auth_pb2 import Permission

KEYS = [bytes(key) for key in (b"a", b"a\x00", b"a\x00\x00", b"b", b"bb", b"c", b"\xff", b"\x00")]
ENDS = [b"", FROM_KEY, *KEYS]
MANY = int(os.environ.get("CONNECT_KV_DECISIONS", "20000"))


def points() -> list[bytes]:
    """Enough keys to tell any two ranges of these bounds apart: each bound, what follows it, and the end."""
    return sorted({*KEYS, *(key + b"\x00" for key in KEYS), *(key + b"\x01" for key in KEYS), b"\xff\xff"})


def holds(key: bytes, end: bytes, point: bytes) -> bool:
    if end == FROM_KEY:
        return point >= key
    return key <= point < end if end > key else point == key


def model(permissions: list[tuple[bytes, bytes]], key: bytes, end: bytes) -> bool:
    """Every point of the request is in a permission, and an end that is open needs one that is."""
    if end == FROM_KEY and not any(stop == FROM_KEY for _, stop in permissions):
        return False
    return all(
        any(holds(start, stop, point) for start, stop in permissions)
        for point in points()
        if holds(key, end, point)
    )


def test_decisions_agree_with_the_model() -> None:
    rng = random.Random(1)
    for _ in range(MANY // 10):
        wanted = [(rng.choice(KEYS), rng.choice(ENDS)) for _ in range(rng.randrange(4))]
        granted = [one for one in wanted if usable(Permission(key=one[0], range_end=one[1]))]
        union = RangeUnion(granted)
        for _ in range(10):
            key, end = rng.choice(KEYS), rng.choice(ENDS)
            assert union.covers(key, end) == model(granted, key, end), (granted, key, end)


@pytest.mark.parametrize(
    ("granted", "key", "end", "allowed"),
    [
        ([(b"a", b"b"), (b"b", b"c")], b"a", b"c", True),
        ([(b"a", b""), (b"a\x00", b"")], b"a", b"a\x00\x00", True),
        ([(b"a", b"b"), (b"c", b"d")], b"a", b"d", False),
        ([(b"b", FROM_KEY)], b"c", FROM_KEY, True),
        ([(b"b", FROM_KEY)], b"a", FROM_KEY, False),
        ([(b"b", b"c")], b"b", FROM_KEY, False),
        ([(b"\x00", FROM_KEY)], b"", b"", False),
        ([(b"k", b"l")], b"k", b"a", True),
        ([(b"k", b"l")], b"m", b"a", False),
    ],
)
def test_a_union_of_ranges(granted: list[tuple[bytes, bytes]], key: bytes, end: bytes, allowed: bool) -> None:
    assert RangeUnion(granted).covers(key, end) is allowed


def test_writing_is_not_reading_and_an_unknown_type_is_nothing() -> None:
    unknown = Permission.FromString(b"\x08\x07\x12\x01z")
    writes = Permission(permType=Permission.WRITE, key=b"a")
    both = Permission(permType=Permission.READWRITE, key=b"b")
    rights = rights_of([writes, both, unknown], [], root=False)
    assert (rights.may_write(b"a"), rights.may_read(b"a")) == (True, False)
    assert (rights.may_write(b"b"), rights.may_read(b"b")) == (True, True)
    assert not rights.may_read(b"z")
    assert rights_of([], [], root=True).may_write(b"", FROM_KEY)
