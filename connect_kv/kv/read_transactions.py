"""Read transactions: frozen states in use, so that the database under them can be exchanged or closed."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from connect_kv.errors import NodeStopped
from connect_kv.kv import layout
from connect_kv.kv.layout import Source, StoreState
from connect_kv.storage.engine import View


class ReadTransaction:
    """One frozen state: keys and numbers that belong together."""

    __slots__ = ("_walks", "closed", "state", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.state = StoreState.decode(view.get(layout.STATE))
        self.closed = False
        self._walks: list[Generator[None, None, object]] = []

    def steps(self, walk: Generator[None, None, object]) -> Generator[None, None, None]:
        """Run a walk over the view up to each of its pauses.

        Raises NodeStopped at a pause if the database has gone meanwhile.
        """
        self._walks.append(walk)
        while True:
            if self.closed:
                raise NodeStopped("the database was exchanged under this read")
            try:
                next(walk)
            except StopIteration:
                return
            yield

    def close(self) -> None:
        """End the walks, then give the view back: a database must outlive its iterators."""
        if not self.closed:
            self.closed = True
            for walk in self._walks:
                walk.close()
            self.view.close()


class ReadTransactions:
    """All that are open now. Used on the loop only."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._open: dict[ReadTransaction, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def source(self) -> Source | None:
        """Where transactions read from."""
        return self._source

    def load(self, source: Source | None) -> None:
        """Read from there from now on, and let go of what was before."""
        for transaction in self._open:
            transaction.close()
        self._open.clear()
        self._source = source

    @contextmanager
    def open(self) -> Generator[ReadTransaction, None, None]:
        """The state now. Raises NodeStopped when there is none."""
        if self._source is None:
            raise NodeStopped("the database is closed")
        transaction = ReadTransaction(self._source.view())
        self._open[transaction] = None
        try:
            yield transaction
        finally:
            self._open.pop(transaction, None)
            transaction.close()
