"""What persistent machines write into: their part of the state database."""

from __future__ import annotations

from collections.abc import Iterator

from connect_kv.kv.layout import Changes
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader


class ReadStore:
    """The bytes of one machine, to be read."""

    def __init__(self, name: str, reader: Reader) -> None:
        encoded = name.encode()
        self._prefix = bytes((codec.MACHINE_DATA, len(encoded))) + encoded
        self._reader = reader

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return self._reader.get(self._prefix + key)

    def iterate(
        self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < stop`` in key order (None: to the end), or backwards."""
        prefix = self._prefix
        end = _after(prefix) if stop is None else prefix + stop
        for key, value in self._reader.iterate(prefix + start, end, reverse=reverse):
            yield key[len(prefix) :], value

    def put(self, key: bytes, value: bytes) -> None:
        """Refused."""
        raise PermissionError("a message that is only read must not change the store")

    def delete(self, key: bytes) -> None:
        """Refused."""
        raise PermissionError("a message that is only read must not change the store")


class SliceStore(ReadStore):
    """The bytes of one machine while commands run: changes go into the slice's batch."""

    def __init__(self, name: str, changes: Changes) -> None:
        super().__init__(name, changes)
        self._changes = changes

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of `key`."""
        if not isinstance(key, bytes) or not isinstance(value, bytes):
            raise TypeError("keys and values of a store are bytes")
        self._changes.put(self._prefix + key, value)

    def delete(self, key: bytes) -> None:
        """Remove `key`, whether it is there or not."""
        self._changes.delete(self._prefix + key)


def _after(prefix: bytes) -> bytes:
    """The first key that does not start with it. The last byte may be 0xff, the first never is."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))
