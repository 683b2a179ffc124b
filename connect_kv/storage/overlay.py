"""Read your own writes: pending changes over a Reader, until they become one batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from sortedcontainers import SortedDict

from connect_kv.storage.engine import Reader

_PAGE = 64


class Overlay:
    """Pending changes over a reader that does not change meanwhile (an engine between batches, a view).

    Belongs to one thread. `put` and `delete` cost a dict entry; order is only kept once iterated.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._changes: dict[bytes, bytes | None] = {}
        self._sorted: SortedDict[bytes, bytes | None] | None = None

    @property
    def changes(self) -> Mapping[bytes, bytes | None]:
        """What is pending: key to value, None for deleted."""
        return self._changes

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, pending or underneath."""
        changes = self._changes
        if key in changes:
            return changes[key]
        return self._reader.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key`."""
        self._changes[key] = value
        if self._sorted is not None:
            self._sorted[key] = value

    def put_all(self, pairs: Mapping[bytes, bytes]) -> None:
        """Set many."""
        self._changes.update(pairs)
        if self._sorted is not None:
            self._sorted.update(pairs)

    def delete(self, key: bytes) -> None:
        """Remove `key`, whether it is there or not."""
        self._changes[key] = None
        if self._sorted is not None:
            self._sorted[key] = None

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs of ``[start, stop)`` in key order, or backwards.

        Changes made while iterating show for keys at least a page of 64 pending ones ahead, and for
        others perhaps.
        """
        below = self._reader.iterate(start, stop, reverse=reverse)
        if not self._changes:
            return below
        if self._sorted is None:
            self._sorted = SortedDict(self._changes)
        return merge(below, _pages(self._sorted, start, stop, reverse), reverse=reverse)


def merge(
    below: Iterable[tuple[bytes, bytes]],
    above: Iterable[tuple[bytes, bytes | None]],
    *,
    reverse: bool = False,
) -> Iterator[tuple[bytes, bytes]]:
    """Two ordered sources as one: where both have a key, `above` rules; its None removes the key."""
    lower, upper = iter(below), iter(above)
    try:
        under, over = next(lower, None), next(upper, None)
        while over is not None:
            key = over[0]
            while under is not None and (under[0] > key if reverse else under[0] < key):
                yield under
                under = next(lower, None)
            if under is not None and under[0] == key:
                under = next(lower, None)
            if over[1] is not None:
                yield key, over[1]
            over = next(upper, None)
        if under is not None:
            yield under
            yield from lower
    finally:
        for source in (lower, upper):
            if (close := getattr(source, "close", None)) is not None:
                close()


def _pages(
    changes: SortedDict[bytes, bytes | None], start: bytes, stop: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes | None]]:
    """A sorted dict's pairs, a page at a time, so that it may change in between."""
    low, high, inclusive = start, stop, (True, False)
    while True:
        keys = list(islice(changes.irange(low, high, inclusive, reverse), _PAGE))
        for key in keys:
            yield key, changes[key]
        if len(keys) < _PAGE:
            return
        if reverse:
            high = keys[-1]
        else:
            low, inclusive = keys[-1], (False, False)
