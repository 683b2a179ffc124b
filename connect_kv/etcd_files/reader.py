"""Reads a bbolt file from its root, and believes none of it: what does not fit is refused by name.

Every page that is reached must be the page it is said to be, lie within the file, and hold its elements in
ascending order, within the bounds that its parent gives; so a page that was lost, written half, or belongs
to another moment cannot pass for data. Only one page of each height of the tree is in memory.

bbolt has no checksum over keys and values. A snapshot has one, over the whole file: `check_digest`.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from operator import ge
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from connect_kv.errors import CorruptStorage
from connect_kv.etcd_files.pages import (
    A_BUCKET,
    BRANCH,
    BRANCH_PAGE,
    BUCKET,
    LEAF,
    LEAF_PAGE,
    META_BYTES,
    PAGE_HEAD,
    PAGE_SIZES,
    Meta,
)

DIGEST_BYTES = 32
_BLOCK = 512
_READ_BYTES = 1 << 20
_MOST_HEIGHT = 32
_AN_ITEM = 0
_DEEP = "its tree has no end"

Progress = Callable[[int, int], None]
"""``progress(done, total)`` in bytes."""
Pair = tuple[bytes, bytes]


class Subtree(NamedTuple):
    """What lies under one page: keys of ``[low, high)``; no `high`: to the end."""

    low: bytes
    page: int
    high: bytes | None


def no_progress(done: int, total: int) -> None:
    """For who wants to see none."""


class BoltFile:
    """One file, opened for reading. A context manager. Raises CorruptStorage naming it, and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(self._file).st_size
            self.meta = self._read_meta()
            self._roots = self._read_roots()
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> BoltFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def fileno(self) -> int:
        """The open file, for a lock on it."""
        return self._file

    @property
    def has_digest(self) -> bool:
        """Whether it ends with a SHA-256 of all before, as far as its length tells (etcd's own rule)."""
        return self.size % _BLOCK == DIGEST_BYTES

    @property
    def content_bytes(self) -> int:
        """Bytes of the pages in use and between."""
        return self.meta.pages * self.meta.page_size

    @property
    def buckets(self) -> tuple[bytes, ...]:
        """The names of all buckets, in order."""
        return tuple(self._roots)

    def check_digest(self, progress: Progress = no_progress) -> bytes:
        """Read all of a snapshot; returns its digest, which is right."""
        if not self.has_digest:
            raise self._bad("has no digest at its end, as a snapshot has: it was cut short, or is none")
        end = self.size - DIGEST_BYTES
        digest = self._digest(end, progress)
        if digest != self._read(end, DIGEST_BYTES):
            raise self._bad("does not match its digest: it is damaged")
        return digest

    def digest(self, progress: Progress = no_progress) -> bytes:
        """SHA-256 of what is in the file, whatever stands at its end."""
        return self._digest(self.content_bytes, progress)

    def _digest(self, end: int, progress: Progress) -> bytes:
        digest, at = hashlib.sha256(), 0
        while at < end:
            piece = self._read(at, min(_READ_BYTES, end - at))
            digest.update(piece)
            at += len(piece)
            progress(at, end)
        return digest.digest()

    def items(self, bucket: bytes) -> Iterator[Pair]:
        """Keys and values of a bucket in order; none if there is no such bucket."""
        for leaf in self.leaves(bucket):
            yield from leaf

    def leaves(self, bucket: bytes, under: Sequence[Subtree] = ()) -> Iterator[list[Pair]]:
        """The same, page by page; of those subtrees only, if any are named."""
        value = self._roots.get(bucket)
        if value is None:
            return
        root, _ = BUCKET.unpack_from(value)
        if not root:
            yield self._inline(value[BUCKET.size :])
            return
        for subtree in under or (Subtree(b"", root, None),):
            yield from self._tree(subtree, _AN_ITEM)

    def subtrees(self, bucket: bytes, count: int) -> list[Subtree]:
        """The bucket's tree in `count` parts or more, in order; fewer, or none, of one with few pages."""
        value = self._roots.get(bucket)
        root = 0 if value is None else BUCKET.unpack_from(value)[0]
        found = [Subtree(b"", root, None)] if root else []
        for _ in range(_MOST_HEIGHT):
            if not found or len(found) >= count:
                return found
            below: list[Subtree] = []
            for subtree in found:
                kind, number, data = self._page(subtree.page)
                if kind != BRANCH_PAGE:
                    return found
                below += self._children(subtree, number, data)
            found = below
        raise self._bad(_DEEP)

    # The head.

    def _read_meta(self) -> Meta:
        """The newer one that is whole. Where the first is not, the second lies at one page size."""
        found = []
        first = Meta.decode(self._read(0, min(META_BYTES, self.size)))
        sizes = PAGE_SIZES if first is None else (first.page_size,)
        for size in sizes:
            if size + META_BYTES <= self.size:
                second = Meta.decode(self._read(size, META_BYTES))
                if second is not None and second.page_size == size:
                    found.append(second)
        if first is not None:
            found.append(first)
        if not found:
            raise self._bad("is no database of etcd: neither of its two heads is whole")
        meta = max(found, key=lambda one: one.transaction)
        if meta.pages * meta.page_size > self.size:
            raise self._bad(
                f"is cut short: it has {self.size} bytes, and its head tells of {meta.pages * meta.page_size}"
            )
        return meta

    def _read_roots(self) -> dict[bytes, bytes]:
        roots = {}
        for leaf in self._tree(Subtree(b"", self.meta.root, None), A_BUCKET):
            for key, value in leaf:
                if len(value) < BUCKET.size:
                    raise self._bad(f"holds {_name(key)} where only buckets are")
                roots[key] = value
        return roots

    # Trees.

    def _tree(self, subtree: Subtree, flags: int) -> Iterator[list[Pair]]:
        """The elements of all leaves under a page, in order."""
        waiting: list[Iterator[Subtree]] = []
        low, page, high = subtree
        leaves = 0
        while True:
            kind, count, data = self._page(page)
            if kind == BRANCH_PAGE:
                if len(waiting) >= _MOST_HEIGHT:
                    raise self._bad(_DEEP)
                waiting.append(self._children(Subtree(low, page, high), count, data))
            else:
                leaves += 1
                if leaves > self.meta.pages:
                    raise self._bad(_DEEP)
                leaf = self._elements(page, count, data, flags)
                if leaf:
                    self._check_order(f"page {page}", leaf)
                    if leaf[0][0] < low or (high is not None and leaf[-1][0] >= high):
                        raise self._bad(f"the keys of page {page} are out of order")
                    yield leaf
            following = None
            while waiting and following is None:
                following = next(waiting[-1], None)
                if following is None:
                    waiting.pop()
            if following is None:
                return
            low, page, high = following

    def _check_order(self, where: str, leaf: list[Pair]) -> None:
        keys = [key for key, _ in leaf]
        if any(map(ge, keys, keys[1:])):
            raise self._bad(f"the keys of {where} are out of order")

    def _children(self, of: Subtree, count: int, data: bytes) -> Iterator[Subtree]:
        """What lies under each child of a branch."""
        low, page, high = of
        if not count:
            raise self._bad(f"page {page} is a branch without children")
        before: tuple[bytes, int] | None = None
        place, end = PAGE_HEAD.size, len(data)
        expected = place + count * BRANCH.size
        for at, size, child in BRANCH.iter_unpack(data[place:expected]):
            start = place + at
            stop = start + size
            if start != expected or stop > end:
                raise self._bad(f"an element of page {page} lies where none is")
            key = data[start:stop]
            place, expected = place + BRANCH.size, stop
            if before is None:
                if key < low or (high is not None and key >= high):
                    raise self._bad(f"the keys of page {page} are out of order")
            else:
                if key <= before[0]:
                    raise self._bad(f"the keys of page {page} are out of order")
                yield Subtree(*before, key)
            before = key, child
        assert before is not None
        yield Subtree(*before, high)

    def _elements(self, page: int, count: int, data: bytes, flags: int) -> list[Pair]:
        """They lie one after the other, without gaps: so a length or a place that is wrong is seen."""
        place, end = PAGE_HEAD.size, len(data)
        expected = place + count * LEAF.size
        found: list[Pair] = []
        add = found.append
        for own_flags, at, key_size, value_size in LEAF.iter_unpack(data[place:expected]):
            middle = expected + key_size
            stop = middle + value_size
            if place + at != expected or stop > end:
                raise self._bad(f"an element of page {page} lies where none is")
            if own_flags != flags:
                raise self._bad(f"page {page} holds {'an item' if flags else 'a bucket'} where none belongs")
            add((data[expected:middle], data[middle:stop]))
            place += 16
            expected = stop
        return found

    def _inline(self, data: bytes) -> list[Pair]:
        """Of a bucket that is small enough to lie in its own entry."""
        count = self._head_of(data, 0, LEAF_PAGE)[1]
        self._check_count(0, LEAF_PAGE, count, data)
        leaf = self._elements(0, count, data, _AN_ITEM)
        self._check_order("a small bucket", leaf)
        return leaf

    def _page(self, page: int) -> tuple[int, int, bytes]:
        """Its kind, its count, and itself with what overflows of it."""
        size, pages = self.meta.page_size, self.meta.pages
        if not 2 <= page < pages:
            raise self._bad(f"names page {page}, and has pages up to {pages - 1}")
        data = self._read(page * size, size)
        kind, count, overflow = self._head_of(data, page, LEAF_PAGE | BRANCH_PAGE)
        if overflow:
            if page + overflow >= pages:
                raise self._bad(f"page {page} goes on beyond the end")
            data += self._read((page + 1) * size, overflow * size)
        self._check_count(page, kind, count, data)
        return kind, count, data

    def _head_of(self, data: bytes, page: int, kinds: int) -> tuple[int, int, int]:
        try:
            own, kind, count, overflow = PAGE_HEAD.unpack_from(data)
        except struct.error:
            raise self._bad("a bucket ends early") from None
        if own != page:
            raise self._bad(f"where page {page} is to be, there is page {own}")
        if kind not in (LEAF_PAGE, BRANCH_PAGE) or not kind & kinds:
            raise self._bad(f"page {page} is of kind {kind}, which is no part of a tree")
        return kind, count, overflow

    def _check_count(self, page: int, kind: int, count: int, data: bytes) -> None:
        element = BRANCH.size if kind == BRANCH_PAGE else LEAF.size
        if PAGE_HEAD.size + count * element > len(data):
            raise self._bad(f"page {page} has too many elements")

    def _read(self, at: int, count: int) -> bytes:
        data = os.pread(self._file, count, at)
        if len(data) != count:
            raise self._bad("ends early")
        return data

    def _bad(self, reason: str) -> CorruptStorage:
        return CorruptStorage(str(self.path), reason)


def _name(bucket: bytes) -> str:
    return bucket.decode("utf-8", "backslashreplace")
