"""Engine: ordered bytes, atomic batches, frozen views. What lies under the log and the state.

Keys sort bytewise. Every read verifies checksums; a damaged block raises CorruptStorage, also in
the middle of an iteration. After any failed write an engine accepts no further write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from connect_kv.storage.views import OpenViews


class Reader(Protocol):
    """Reads of one state of a database. Safe from any thread; cheap enough for the loop."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def iterate(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < stop`` in key order (None: to the end), or backwards.

        Close the iterator (or exhaust it) before the database is closed.
        """


class View(Reader, Protocol):
    """A frozen state: later writes do not show. Close it; an open view holds back disk space."""

    def gets(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """`get` of each of them."""

    def close(self) -> None:
        """Give it back. Safe to repeat."""


class WriteBatch(Protocol):
    """Changes that become visible, and durable, together or not at all."""

    @property
    def size(self) -> int:
        """Bytes of keys and values."""

    def add(self, changes: Mapping[bytes, bytes | None]) -> None:
        """More of them (None deletes). Per-key work happens here, on the calling thread."""

    def write(self, *, sync: bool) -> None:
        """Apply it, once. With `sync` it is on disk on return. May block: call it on a worker thread.

        Raises StorageError; after that every write to this engine raises.
        """


class Engine(Reader, Protocol):
    """One open database."""

    @property
    def path(self) -> Path:
        """The directory of the database."""

    @property
    def views(self) -> OpenViews:
        """Which views are open."""

    def batch(self, changes: Mapping[bytes, bytes | None]) -> WriteBatch:
        """Prepare `changes` (None deletes). Per-key work happens here, on the calling thread."""

    def view(self) -> View:
        """The state now."""

    def copy(self, target: Path) -> bool:
        """Make a database in `target` with what is in this one now, for another process to read. Blocks.

        `target` is a new directory of the same file system. Nobody may write meanwhile. False, and nothing
        done, if there are no files that another process could read.
        """

    def sync(self) -> None:
        """Make every write that returned before this call durable, synced or not. Blocks."""

    def compact_range(self, start: bytes, stop: bytes) -> None:
        """Give back the space of what was deleted in ``[start, stop)``. Blocks, possibly for long.

        Not of what an open view can see, and not of what one could see the last time, unless something
        was written since around it: tables that lie lowest are not rewritten for their own sake.
        """

    def lowest_tables(self, start: bytes, stop: bytes) -> tuple[bytes, bytes] | None:
        """The first and last key within tables of the lowest level in ``[start, stop)``; None without tables.

        What is written at these two is merged with all in between by the next `compact_range`.
        """

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """Bytes on disk of that range, roughly."""

    def disk_size(self) -> int:
        """Bytes of all its files."""

    def close(self) -> None:
        """Close it. Every iterator, view and call on it must have ended. Safe to repeat."""


class OpenEngine(Protocol):
    """Opens, or creates, the database in a directory."""

    def __call__(
        self, path: Path, *, write_buffer: int = 4 << 20, must_exist: bool = False, in_order: bool = False
    ) -> Engine:
        """Raises StorageError (also when another process holds it), CorruptStorage.

        After a power failure, batches that were not synced may be missing although later ones are
        there. With `in_order` those are given up as well: what is left is how it was at some moment.
        """


class Disk(Protocol):
    """The directories databases live in, so that tests and the simulator can stand in for them."""

    @property
    def open(self) -> OpenEngine:
        """Opens, or creates, the database in a directory."""

    def list(self, path: Path) -> list[str]:
        """Names in a directory; empty if it does not exist."""

    def remove(self, path: Path) -> None:
        """Delete a database and its directory, if there."""

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """(free, total) bytes of the file system that holds `path`."""
