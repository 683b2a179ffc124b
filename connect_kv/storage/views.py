"""Which views of a database are open: as long as one is, nothing that it can see is given back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock


@dataclass(slots=True, eq=False)
class _Waiting:
    views: set[int]
    call: Callable[[], None]


class OpenViews:
    """Of one database. Views are numbered in the order in which they were opened. Safe from any thread."""

    def __init__(self, flush_bytes: int) -> None:
        """`flush_bytes`: so much has to be written before LevelDB writes tables of it."""
        self._flush_bytes = flush_bytes
        self._lock = Lock()
        self._next = 0
        self._written = 0
        self._open: dict[int, int] = {}
        """By number: what had been written when it was opened."""
        self._waiting: list[_Waiting] = []
        self.held = False
        """Whether a view has been open while tables may have been written of what was deleted since:
        LevelDB then kept the old values, in tables that it rewrites only for a reason."""

    def opened(self) -> int:
        """A view was opened; its number."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._open[number] = self._written
            return number

    def closed(self, number: int) -> None:
        """It was closed. Safe to repeat."""
        with self._lock:
            before = self._open.pop(number, None)
            if before is None:
                return
            self.held = self.held or self._written - before >= self._flush_bytes
            for waiting in self._waiting:
                waiting.views.discard(number)
            due = [waiting for waiting in self._waiting if not waiting.views]
            self._waiting = [waiting for waiting in self._waiting if waiting.views]
        for waiting in due:
            waiting.call()

    def wrote(self, size: int) -> None:
        """So many bytes of keys and values were written."""
        with self._lock:
            self._written += size

    def mark(self) -> int:
        """Views opened up to now have lower numbers."""
        return self._next

    def before(self, mark: int) -> frozenset[int]:
        """The open ones that were opened before that."""
        with self._lock:
            return frozenset(number for number in self._open if number < mark)

    def when_closed(self, views: Iterable[int], call: Callable[[], None]) -> None:
        """Call once all of these are closed: on the thread that closes the last one, or here and now."""
        with self._lock:
            waiting = _Waiting({number for number in views if number in self._open}, call)
            if waiting.views:
                self._waiting.append(waiting)
                return
        call()
