"""What a watch missed, read from the history: in pieces, each from a fresh view of the database.

A watch of one key walks that key's entries of the index; one of a range walks the history itself,
because the order of its answer is that of the revisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from connect_kv.kv import layout, revision, scan
from connect_kv.kv.layout import DELETED, HISTORY
from connect_kv.kv.read_transactions import ReadTransaction
from connect_kv.kv.revision import Revision
from connect_kv.kv.store import WatchedChange
from connect_kv.storage.engine import Reader

SLICE_CHANGES = 256
"""Changes looked at in one piece; about a millisecond."""
SLICE_BYTES = 1 << 20
"""Or so many bytes of them: a piece of large values is not to fill the memory."""


class Piece(NamedTuple):
    """The matching changes of one piece, and where the next one starts."""

    changes: list[WatchedChange]
    position: Revision
    """``Revision(last + 1, 0)`` once everything up to the last revision asked for was read."""


def read_piece(
    transaction: ReadTransaction,
    key: bytes,
    range_end: bytes,
    position: Revision,
    last: int,
    *,
    prev_kv: bool,
) -> Piece:
    """Changes of the range from `position` on, none beyond revision `last`."""
    reader = transaction.view
    walk = _of_key(reader, key, position, last) if not range_end else _of_all(reader, position, last)
    found, at_end = _first(walk)
    compacted = transaction.state.compacted
    changes = []
    for revision_key, record in found:
        deleted = record.startswith(DELETED)
        name = record[1:] if deleted else scan.parse(record).key
        if layout.covers(key, range_end, name):
            main = revision.unpack(revision_key)[0]
            # Before a compacted revision nothing can be told reliably, on all members alike.
            previous = scan.value_before(reader, name, main) if prev_kv and main > compacted else None
            changes.append(WatchedChange(name, main, None if deleted else record, previous))
    if at_end:
        return Piece(changes, Revision(last + 1))
    main, sub = revision.unpack(found[-1][0])
    return Piece(changes, Revision(main, sub + 1))


def _first(walk: Iterable[tuple[bytes, bytes]]) -> tuple[list[tuple[bytes, bytes]], bool]:
    """The changes of one piece, and whether these are all."""
    found: list[tuple[bytes, bytes]] = []
    size = 0
    for revision_key, record in walk:
        found.append((revision_key, record))
        size += len(record)
        if len(found) >= SLICE_CHANGES or size >= SLICE_BYTES:
            return found, False
    return found, True


def _of_all(reader: Reader, position: Revision, last: int) -> Iterator[tuple[bytes, bytes]]:
    start = HISTORY + position.encode()
    _, stop = layout.history_bounds(0, last)
    for key, record in reader.iterate(start, stop):
        yield key[1:], record


def _of_key(reader: Reader, key: bytes, position: Revision, last: int) -> Iterator[tuple[bytes, bytes]]:
    prefix = layout.index_key(key)
    stop = prefix + revision.pack(last, revision.LAST_SUB) + b"\x00"
    for entry, _ in reader.iterate(prefix + position.encode(), stop):
        revision_key = entry[-revision.SIZE :]
        record = reader.get(HISTORY + revision_key)
        if record is None:
            raise LookupError(
                f"the index names {revision.unpack(revision_key)}, but history has no such record"
            )
        yield revision_key, record
