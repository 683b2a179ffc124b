"""What the core raises when it finds itself in a state that cannot be."""

from __future__ import annotations

from connect_kv.errors import ConnectKvError


class RaftInvariantError(ConnectKvError):
    """A property that Raft guarantees does not hold: a bug, or a disk that forgot what it promised.

    The node must stop; going on could lose what was acknowledged.
    """

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
