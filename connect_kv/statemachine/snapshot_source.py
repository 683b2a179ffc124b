"""A frozen state on its way to a follower."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from connect_kv.storage import codec, transfer
from connect_kv.storage.engine import Engine, View


class ViewSource:
    """A view of the state database (`interfaces.SnapshotSource`)."""

    def __init__(self, engine: Engine, last_applied: int, closed: Callable[[ViewSource], None]) -> None:
        self._view = engine.view()
        self._last_applied = last_applied
        self._closed = closed
        self._approximate_bytes = engine.approximate_size(b"", bytes((codec.CLUSTER + 1,)))

    @property
    def last_applied(self) -> int:
        """The index it stands at."""
        return self._last_applied

    @property
    def approximate_bytes(self) -> int:
        """Roughly how much `chunks` will yield."""
        return self._approximate_bytes

    @property
    def view(self) -> View:
        """The state itself."""
        return self._view

    def chunks(self) -> AsyncIterator[bytes]:
        """The state in pieces."""
        return transfer.dump(self._view)

    def close(self) -> None:
        """Give the view back. Safe to repeat."""
        self._view.close()
        self._closed(self)
