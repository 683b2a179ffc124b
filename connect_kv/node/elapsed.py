"""Elapsed: how much time the leader has measured, for the entries it proposes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from connect_kv.interfaces import Clock
from connect_kv.node.history import History
from connect_kv.raft.core import RaftCore

_NOTHING = 1
"""Says that nothing is known to have passed. Not 0, which is no stamp at all."""


class Measured(Protocol):
    """The part of a ReplicatedState that holds it."""

    def elapsed(self, members: Iterable[int]) -> int | None:
        """As of `last_applied`; None while one of these members would not understand it."""


class Elapsed:
    """Stamps entries while this member leads. Between two entries it never counts more than has passed.

    It goes on from the state once all that earlier leaders appended is applied here. Not from a note of
    when this member applied the last of it: what it had not applied yet may have been stamped by a
    leader that had lost time, and what was renewed there would be older by as much at once.
    """

    def __init__(self, *, core: RaftCore, clock: Clock, history: History, state: Measured) -> None:
        self._core = core
        self._clock = clock
        self._history = history
        self._state = state
        self._term = 0
        """Of the leadership in which it measures."""
        self._base = 0
        self._since = 0.0

    def stamp(self) -> int:
        """For an entry proposed now, nanoseconds; 0 while a member would not understand it."""
        now, term = self._clock.now(), self._core.term
        if self._term != term:
            known = self._state.elapsed(self._history.membership.node_ids)
            if known is None:
                return 0
            # The first entry of a term is the leader's own: with it, all before is applied.
            if self._history.applied.term != term:
                return _NOTHING
            self._term, self._base, self._since = term, max(_NOTHING, known), now
        return self._base + int((now - self._since) * 1e9)
