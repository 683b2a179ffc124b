"""Header fields of HTTP/2 (HPACK, RFC 7541)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from connect_kv.http2 import huffman

Field = tuple[bytes, bytes]

_NAMES: Final = (
    ":authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 "
    ":status=204 :status=206 :status=304 :status=400 :status=404 :status=500 accept-charset "
    "accept-encoding=gzip,_deflate accept-language accept-ranges accept access-control-allow-origin age "
    "allow authorization cache-control content-disposition content-encoding content-language content-length "
    "content-location content-range content-type cookie date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards "
    "proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie "
    "strict-transport-security transfer-encoding user-agent vary via www-authenticate"
)
STATIC: Final[tuple[Field, ...]] = tuple(
    (name.encode(), value.replace("_", " ").encode())
    for name, _, value in (one.partition("=") for one in _NAMES.split())
)
"""Appendix A; the first entry has index 1."""
TABLE_SIZE: Final = 4096
"""Bytes, of the table on either side: the protocol's default, which this side never changes."""
_STATIC_INDEXES: Final = {field: at for at, field in enumerate(STATIC, 1)}
ENTRY_OVERHEAD: Final = 32
"""What an entry counts beyond its name and value (4.1)."""
_FIRST: Final = len(STATIC) + 1
_FAR_TOO_LONG: Final = 4


class FieldError(Exception):
    """The block cannot be read, so the table is of no use any more: COMPRESSION_ERROR."""


class TooLong(Exception):
    """The list is so long that nobody means it."""


class FieldDecoder:
    """The fields that one peer sends."""

    def __init__(self, longest: int) -> None:
        """`longest`: bytes of one list of fields as SETTINGS_MAX_HEADER_LIST_SIZE counts them."""
        self._longest = longest
        self.entries: list[Field] = []
        """The dynamic table, the newest at the end: index 62 is the last."""
        self.inserted = 0
        """Entries ever."""
        self.changes = 0
        """Counts what changed the table: while it stands still, a block means what it meant before."""
        self._size = 0
        self._limit = TABLE_SIZE

    def decode(self, block: bytes) -> tuple[list[Field], int]:
        """The fields and their size. Of a list above the limit the fields beyond are left out: they are read
        all the same, because what they do to the table counts for the next block. Raises FieldError, TooLong.
        """
        fields: list[Field] = []
        at = total = 0
        end, longest = len(block), self._longest
        while at < end:
            octet = block[at]
            if octet & 0x80:
                index, at = _integer(block, at, 0x7F)
                field = self.entry(index)
            elif octet & 0xE0 == 0x20:
                if total:
                    raise FieldError("a change of the table's size amid fields")
                limit, at = _integer(block, at, 0x1F)
                self._resize(limit)
                continue
            else:
                indexing = octet & 0x40
                index, at = _integer(block, at, 0x3F if indexing else 0x0F)
                if index:
                    name = self.entry(index)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                field = (name, value)
                if indexing:
                    self.insert(field)
            total += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
            if total <= longest:
                fields.append(field)
            elif total > _FAR_TOO_LONG * longest:
                raise TooLong
        return fields, total

    def entry(self, index: int) -> Field:
        """By its index in both tables. Raises FieldError."""
        if 0 < index < _FIRST:
            return STATIC[index - 1]
        if not _FIRST <= index < _FIRST + len(self.entries):
            raise FieldError("no field has that index")
        return self.entries[_FIRST - 1 - index]

    def insert(self, field: Field) -> None:
        """Add an entry; one larger than the table empties it (4.4), which is no change of an empty one."""
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        self._evict(self._limit - size)
        if size <= self._limit:
            self.entries.append(field)
            self.inserted += 1
            self._size += size
            self.changes += 1

    def _resize(self, limit: int) -> None:
        if limit > TABLE_SIZE:
            raise FieldError("a table larger than allowed")
        self._limit = limit
        self._evict(limit)

    def _evict(self, room: int) -> None:
        while self.entries and self._size > room:
            name, value = self.entries.pop(0)
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD
            self.changes += 1


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """The number whose prefix are the bits `mask` of the octet at `at`, and where it ends (5.1)."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while at < len(block) and shift <= 21:
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
    raise FieldError("a number is too large, or cut off")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(block):
        raise FieldError("a field is cut off")
    coded = block[at] & 0x80
    size, at = _integer(block, at, 0x7F)
    value = block[at : at + size]
    if len(value) < size:
        raise FieldError("a string is cut off")
    if coded:
        try:
            value = huffman.decode(value)
        except ValueError as error:
            raise FieldError(str(error)) from None
    return value, at + size


def literal(name: bytes, value: bytes) -> bytes:
    """A field that enters no table (6.2.2)."""
    return b"\0" + _encoded_string(name) + _encoded_string(value)


def _encoded_string(value: bytes) -> bytes:
    return _encoded_integer(len(value), 0x7F, 0) + value


def _encoded_integer(value: int, mask: int, bits: int) -> bytes:
    if value < mask:
        return bytes((bits | value,))
    encoded, value = bytearray((bits | mask,)), value - mask
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class FieldEncoder:
    """The fields that one side sends. What was sent once stays in the peer's table, until that is full."""

    def __init__(self) -> None:
        self._indexes = _STATIC_INDEXES.copy()
        self._learned: list[Field] = []
        self._room = TABLE_SIZE
        self._resized = False

    def forget(self) -> None:
        """The peer wants a smaller table: from now on none is used, and the next block says so (4.2)."""
        for field in self._learned:
            del self._indexes[field]
        self._learned.clear()
        self._room, self._resized = 0, True

    @property
    def learned(self) -> int:
        """Entries that the peer's table holds."""
        return len(self._learned)

    def encode(self, fields: Iterable[Field], literals: bytes = b"") -> bytes:
        """A block of `fields`, then of `literals`, encoded already. It must leave before the next one."""
        block = []
        if self._resized:
            self._resized = False
            block.append(b"\x20")
        for field in fields:
            index = self._indexes.get(field)
            if index is None:
                block.append(self._new(field))
            else:
                if index < 0:  # a learned one: its place is counted from the newest
                    index += _FIRST + len(self._learned)
                block.append(_encoded_integer(index, 0x7F, 0x80))
        block.append(literals)
        return b"".join(block)

    def _new(self, field: Field) -> bytes:
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        if size > self._room:
            return literal(*field)
        self._room -= size
        self._learned.append(field)
        self._indexes[field] = -len(self._learned)
        return b"\x40" + _encoded_string(field[0]) + _encoded_string(field[1])
