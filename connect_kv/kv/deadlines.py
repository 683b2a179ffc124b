"""Deadlines of leases: when each has lived its time, and which of them have."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

_SLACK = 1000
"""Items of the heap that may stand for nothing, beside as many as stand for something."""


class LeaseDeadlines:
    """Times by id. An id may go and come again, for a longer or a shorter time."""

    def __init__(self) -> None:
        self._times: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []
        self._queued: dict[int, float] = {}
        """The item of the heap that stands for an id: at its time or earlier, for renewals only move the
        time. Any other item of that id is of an earlier life. Were it taken for this one's, an id granted
        for 40 seconds, revoked, and granted for 3 would be looked at after 40.
        """

    def __len__(self) -> int:
        """How much room they take: items of the heap."""
        return len(self._heap)

    def get(self, id: int) -> float | None:
        """Its time; None if it has none."""
        return self._times.get(id)

    def set(self, id: int, time: float) -> None:
        """Its time is this from now on."""
        self._times[id] = time
        if time < self._queued.get(id, float("inf")):
            self._queue(id, time)

    def remove(self, id: int) -> None:
        """It has none any more. Harmless if it had none."""
        self._times.pop(id, None)
        self._queued.pop(id, None)
        if len(self._heap) > 2 * len(self._queued) + _SLACK:
            self._heap = [(time, id) for id, time in self._queued.items()]
            heapify(self._heap)

    def replace(self, times: dict[int, float]) -> None:
        """Have exactly these deadlines, by lease."""
        self._times = dict(times)
        self._queued = dict(times)
        self._heap = [(time, id) for id, time in times.items()]
        heapify(self._heap)

    def take(self, now: float, most: int) -> list[int]:
        """At most so many whose time has come. They are not found again before `put_back`, or a new time."""
        over: list[int] = []
        while self._heap and self._heap[0][0] <= now and len(over) < most:
            queued, id = heappop(self._heap)
            if self._queued.get(id) != queued:
                continue
            del self._queued[id]
            if self._times[id] > now:
                self._queue(id, self._times[id])
            else:
                over.append(id)
        return over

    def put_back(self, ids: Iterable[int]) -> None:
        """Look at those again that still have a time."""
        for id in ids:
            time = self._times.get(id)
            if time is not None and id not in self._queued:
                self._queue(id, time)

    def _queue(self, id: int, time: float) -> None:
        self._queued[id] = time
        heappush(self._heap, (time, id))
