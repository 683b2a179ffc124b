"""The pages of a bbolt file, in which etcd keeps everything.

A file is pages of one size; page n lies at n times that size. Pages 0 and 1 are two *metas*, of which the
newer whole one names the root of a tree of buckets; each bucket is a tree of its own. All numbers are
little-endian.

==================  ==========================================================================
page head (16)      id u64, kind u16, count u16, overflow u32: so many pages more belong to it
meta (64, at 16)    magic, version, page size, flags, root page, sequence, freelist page, pages,
                    transaction, checksum: FNV-1a of the 56 bytes before it
leaf element (16)   flags u32 (1: the value is a bucket), position, key length, value length
branch element      position u32, key length u32, child page u64
bucket (a value)    root page u64, sequence u64; root 0: a whole leaf page follows in the value
==================  ==========================================================================

A position counts from the start of its own element. Free pages keep what they last held: only what is
reached from the root is data.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PAGE_HEAD = struct.Struct("<QHHI")
LEAF = struct.Struct("<IIII")
BRANCH = struct.Struct("<IIQ")
BUCKET = struct.Struct("<QQ")
_META = struct.Struct("<IIIIQQQQQ")
_CHECKSUM = struct.Struct("<Q")

BRANCH_PAGE, LEAF_PAGE, META_PAGE, FREELIST_PAGE = 1, 2, 4, 16
A_BUCKET = 1
"""Flag of a leaf element."""
MOST_ELEMENTS = 0xFFFE
"""The most elements that a page can hold."""

PAGE_SIZES = tuple(1 << power for power in range(9, 17))
"""bbolt uses the page of its operating system: 4096, on some machines 16384 or 65536."""
META_BYTES = PAGE_HEAD.size + _META.size + _CHECKSUM.size

_MAGIC, _VERSION = 0xED0CDAED, 2
_FNV_BASIS, _FNV_PRIME, _FNV_MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


class Meta(NamedTuple):
    """One of the two heads of a file."""

    page_size: int
    root: int
    freelist: int
    pages: int
    """The file's pages have lower numbers."""
    transaction: int

    def encode(self, number: int) -> bytes:
        """The page `number` (0 or 1) that holds it, filled up with zeros."""
        content = _META.pack(
            _MAGIC, _VERSION, self.page_size, 0, self.root, 0, self.freelist, self.pages, self.transaction
        )
        head = PAGE_HEAD.pack(number, META_PAGE, 0, 0)
        return (head + content + _CHECKSUM.pack(_fnv(content))).ljust(self.page_size, b"\0")

    @classmethod
    def decode(cls, page: bytes) -> Meta | None:
        """What the first bytes of a meta page say; None if it is not whole."""
        if len(page) < META_BYTES:
            return None
        content = page[PAGE_HEAD.size : PAGE_HEAD.size + _META.size]
        magic, version, size, flags, root, _, freelist, pages, transaction = _META.unpack(content)
        (checksum,) = _CHECKSUM.unpack_from(page, PAGE_HEAD.size + _META.size)
        if (magic, version, flags) != (_MAGIC, _VERSION, 0) or checksum != _fnv(content):
            return None
        return cls(size, root, freelist, pages, transaction) if size in PAGE_SIZES else None


def _fnv(data: bytes) -> int:
    value = _FNV_BASIS
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & _FNV_MASK
    return value
