"""Connections whose peers have not shown yet that they mean it: a few at a time, and the oldest makes room.

Whoever means it has shown so within milliseconds. Who opens connections and says nothing, or stops in the
middle of a handshake, drives out others like itself, and nobody else; a handshake of TLS that is under way
takes some fifty kilobytes, which nothing else bounds.
"""

from __future__ import annotations

from collections.abc import Callable


class Arrivals:
    """The connections to one server whose peers have not shown yet that they mean it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._there: dict[object, Callable[[], None]] = {}
        self.turned_away = 0
        """How many made room."""

    def __len__(self) -> int:
        return len(self._there)

    def add(self, one: object, abort: Callable[[], None]) -> None:
        """One more, whom `abort` ends; or another way to end one that is here."""
        if one not in self._there and len(self._there) >= self._most:
            oldest = next(iter(self._there))
            self.turned_away += 1
            self._there.pop(oldest)()
        self._there[one] = abort

    def settled(self, one: object) -> None:
        """It has shown who it is, or is gone. Harmless for one that is not here."""
        self._there.pop(one, None)
