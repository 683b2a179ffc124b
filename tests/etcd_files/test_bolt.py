"""What is written is read again; what is damaged is refused, or no key of it is another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files import writer
from connect_kv.etcd_files.pages import Meta
from connect_kv.etcd_files.reader import BoltFile

Buckets = Mapping[bytes, Mapping[bytes, bytes]]


def walk(buckets: Buckets) -> list[tuple[bytes, Callable[[], writer.Pairs]]]:
    def pairs(content: Mapping[bytes, bytes]) -> Callable[[], writer.Pairs]:
        return lambda: iter([None, *sorted(content.items()), None])

    return [(name, pairs(content)) for name, content in sorted(buckets.items())]


def written(buckets: Buckets, page_size: int = writer.PAGE_SIZE) -> bytes:
    layout = next(one for one in writer.plan(walk(buckets), page_size) if one is not None)
    content = b"".join(writer.write(layout, walk(buckets)))
    assert len(content) == layout.size
    return content


def with_digest(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def read(path: Path) -> dict[bytes, dict[bytes, bytes]]:
    with BoltFile(path) as file:
        return {name: dict(file.items(name)) for name in file.buckets}


@given(
    buckets=st.dictionaries(
        st.binary(min_size=1, max_size=8),
        st.dictionaries(st.binary(min_size=1, max_size=300), st.binary(max_size=900), max_size=60),
        max_size=4,
    ),
    page_size=st.sampled_from([512, 1024, 4096]),
)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, buckets: Buckets, page_size: int
) -> None:
    path = tmp_path_factory.mktemp("bolt") / "db"
    path.write_bytes(written(buckets, page_size))
    assert read(path) == {name: dict(sorted(content.items())) for name, content in sorted(buckets.items())}


def test_values_larger_than_a_page_and_trees_of_four_heights(tmp_path: Path) -> None:
    content = {b"%05d" % number: b"v" * (number % 7) for number in range(20_000)}
    content[b"huge"] = random.Random(1).randbytes(1_400_000)
    path = tmp_path / "db"
    path.write_bytes(written({b"key": content, b"z": {}}, 512))
    assert read(path) == {b"key": content, b"z": {}}


def test_a_walk_that_is_not_the_planned_one_is_noticed() -> None:
    layout = next(one for one in writer.plan(walk({b"key": {b"a": b"1"}})) if one is not None)
    longer = {b"key": {b"%d" % number: bytes(100) for number in range(100)}}
    with pytest.raises(ValueError, match="not frozen"):
        list(writer.write(layout, walk(longer)))


SMALL = {
    b"key": {b"%04d" % number: random.Random(number).randbytes(number % 90) for number in range(400)},
    b"meta": {b"a": b"b"},
}


def test_the_newer_of_two_heads_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    """As in a database whose last transaction was cut off while its head was written."""
    content = written(SMALL)
    path = tmp_path / "db"
    for number in (0, 1):
        torn = bytearray(content)
        torn[number * 4096 + 30] ^= 1
        path.write_bytes(torn)
        assert read(path) == SMALL
    elsewhere = bytearray(content)
    elsewhere[4096:8192] = Meta(4096, 1 << 40, 2, len(content) // 4096, 9).encode(1)
    path.write_bytes(elsewhere)
    with pytest.raises(CorruptStorage, match="names page"):
        read(path)
    path.write_bytes(content[:16] + bytes(8176) + content[8192:])
    with pytest.raises(CorruptStorage, match="neither of its two heads"):
        read(path)


def test_a_page_of_another_moment_is_refused(tmp_path: Path) -> None:
    """What a copy of a running database may hold: a page that was used again meanwhile."""
    content = written(SMALL)
    path = tmp_path / "db"
    refused = 0
    leaves = range(
        3, len(content) // 4096 - 3
    )  # of one bucket: before its branch, the other's page, the root
    for at in leaves:
        for other in range(3, leaves.stop + 1):
            if at != other:
                mixed = bytearray(content)
                mixed[at * 4096 + 8 : (at + 1) * 4096] = content[other * 4096 + 8 : (other + 1) * 4096]
                path.write_bytes(mixed)
                with pytest.raises(CorruptStorage):
                    read(path)
                refused += 1
    assert refused > 20


def checked(path: Path) -> None:
    with BoltFile(path) as file:
        file.check_digest()
        for name in file.buckets:
            dict(file.items(name))


@pytest.mark.long
def test_a_snapshot_with_one_bit_changed_or_cut_short_is_refused(tmp_path: Path) -> None:
    """At a thousand random places: the digest at its end speaks for all of it."""
    whole = with_digest(written(SMALL))
    path, rng = tmp_path / "snapshot", random.Random(7)

    def refused(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(CorruptStorage):
            checked(path)

    path.write_bytes(whole)
    with BoltFile(path) as file:
        assert file.check_digest() == whole[-32:]
    for _ in range(1000):
        changed = bytearray(whole)
        changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        refused(bytes(changed))
    for _ in range(200):
        refused(whole[: rng.randrange(len(whole))])
    refused(whole + b"\0")


@pytest.mark.long
def test_a_bit_changed_without_a_digest_is_refused_or_changes_no_structure(tmp_path: Path) -> None:
    """etcd's live database has no checksum: within a key or a value nobody can see it. Nowhere else is one
    read in silence: never a pair more or less, longer or shorter, but at the very end of a page.
    """
    content = written(SMALL)
    path, rng = tmp_path / "db", random.Random(8)
    shapes = {name: [(len(key), len(value)) for key, value in pairs.items()] for name, pairs in SMALL.items()}
    seen = {"refused": 0, "same": 0, "content": 0, "end of a page": 0}
    for _ in range(1500):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = read(path)
        except CorruptStorage:
            seen["refused"] += 1
            continue
        shape = {
            name: [(len(key), len(value)) for key, value in pairs.items()] for name, pairs in found.items()
        }
        if found == SMALL:
            seen["same"] += 1
        elif shape == shapes:
            seen["content"] += 1
        else:
            differing = sum(
                one != other for name in shapes for one, other in zip(shape[name], shapes[name], strict=True)
            )
            assert differing == 1
            seen["end of a page"] += 1
    assert seen["refused"] > 100
    assert seen["content"] > 100
    assert seen["end of a page"] < 30


@given(st.binary(max_size=9000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bolt") / "db"
    path.write_bytes(content)
    with pytest.raises(CorruptStorage):
        read(path)


@pytest.mark.long
@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_pages_behind_a_whole_head_end(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """With heads that are right, the rest may name anything: also itself. It ends, read or refused."""
    content = bytearray(written(SMALL, 512))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(3 * 512, len(content) - 8))
        content[at : at + 8] = data.draw(st.integers(0, 200)).to_bytes(8, "little")
    path = tmp_path_factory.mktemp("bolt") / "db"
    path.write_bytes(content)
    with suppress(CorruptStorage):
        read(path)
