"""RangeCounts: how many keys there are in each stretch of the key space, as far as somebody has counted.

Whoever counts a range for the first time leaves behind what was found, in stretches of some hundred
keys; from then on every new and every deleted key is counted into its stretch. The next count of
that range adds numbers up, and looks at keys only where it begins and ends within a stretch.

The numbers run ahead of readers, with the store. What a reader must not see yet is in `_recent`, and
is subtracted; what was counted in an older state is brought forward by it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from connect_kv.kv import layout, scan
from connect_kv.kv.layout import StoreState
from connect_kv.kv.scan import Walk
from connect_kv.storage.engine import Reader

STRETCH_KEYS = 512
"""Keys of one stretch, at least; more in a store of millions."""
_STRETCHES = 4096
"""About so many for a whole store,"""
MOST_STRETCHES = 32_768
"""and never more than this."""
_UNKNOWN = -1


class _Gap(NamedTuple):
    """Keys that have to be looked at."""

    start: bytes
    stop: bytes | None
    kept: bool
    """What is found is worth keeping; not where a range begins or ends within a known stretch."""


class RangeCounts:
    """Used on the loop only. A stop of None means no end."""

    def __init__(self) -> None:
        self._starts: list[bytes] = [b""]
        self._counts: list[int] = [_UNKNOWN]
        """Of the keys from each start to the next."""
        self._recent: deque[tuple[int, bytes, int]] = deque()
        """(revision, key, 1 or -1) of what not every reader may see, oldest first."""
        self._readers: list[int] = []
        """Revisions at which somebody reads, and may count yet."""
        self._stretch = STRETCH_KEYS

    def clear(self) -> None:
        """Forget all counts: the database is another one now."""
        self._starts, self._counts = [b""], [_UNKNOWN]
        self._recent.clear()
        self._readers = []  # those who still read find the old list gone, and keep nothing

    def note(self, revision: int, key: bytes, step: int) -> None:
        """`key` came to be (1) or was deleted (-1)."""
        self._recent.append((revision, key, step))
        counts = self._counts
        at = bisect_right(self._starts, key) - 1
        if counts[at] != _UNKNOWN:
            counts[at] += step
            if counts[at] > 4 * self._stretch:
                counts[at] = _UNKNOWN  # the next who counts divides it

    def note_created(self, revision: int, keys: Sequence[bytes]) -> None:
        """These keys came to be."""
        if self._counts == [_UNKNOWN]:
            self._recent.extend([(revision, key, 1) for key in keys])  # nobody has counted anything
        else:
            for key in keys:
                self.note(revision, key, 1)

    def published(self, revision: int) -> None:
        """Readers see that revision from now on."""
        # Not what somebody still has to subtract: a count that began at revision 5 and pauses, while 6
        # creates a key and is published, would have that key in its sum.
        recent, floor = self._recent, min([revision, *self._readers])
        if recent and recent[-1][0] <= floor:
            recent.clear()  # as nearly always
        while recent and recent[0][0] <= floor:
            recent.popleft()

    @contextmanager
    def reading(self, revision: int) -> Iterator[None]:
        """Within, `count` may be called for that revision, which must be one that can be read now."""
        readers = self._readers
        readers.append(revision)
        try:
            yield
        finally:
            readers.remove(revision)

    def count(self, reader: Reader, key: bytes, range_end: bytes, state: StoreState) -> Walk[int]:
        """How many keys of the range exist in that state. Within `reading`."""
        if layout.is_everything(key, range_end):
            return state.live
        if not range_end:
            return int(reader.get(layout.CURRENT + key) is not None)
        start, stop = key, None if range_end == layout.FROM_KEY else range_end
        if stop is not None and stop <= start:
            return 0
        readers = self._readers
        # In one go, before the first pause: the numbers move on with the store. What comes while the gaps are
        # walked is of later revisions; the walk does not see it, and `_keep` adds it.
        total, gaps = self._known(start, stop, state.revision)
        size = self._stretch = max(STRETCH_KEYS, state.live // _STRETCHES)
        for gap in gaps:
            starts, numbers = [gap.start], [0]
            for name in scan.names(reader, gap.start, gap.stop, state):
                if name is None:
                    yield
                    continue
                if numbers[-1] == size:
                    starts.append(layout.key_of_name(name))
                    numbers.append(0)
                numbers[-1] += 1
            total += sum(numbers)
            # Another list of readers: another database took this one's place meanwhile.
            if gap.kept and len(starts) > 1 and readers is self._readers:
                self._keep(starts, numbers, gap.stop, state.revision)
        return total

    def _known(self, start: bytes, stop: bytes | None, revision: int) -> tuple[int, list[_Gap]]:
        """What is known of the range at that revision, and what is not."""
        starts, counts = self._starts, self._counts
        first = bisect_right(starts, start) - 1
        last = len(starts) if stop is None else bisect_left(starts, stop)
        if first + 1 == last:
            inner, gaps = 0, [_Gap(start, stop, counts[first] == _UNKNOWN)]
            if counts[first] != _UNKNOWN and start == starts[first] and stop == self._end(first):
                inner, gaps = counts[first], []
        else:
            inner, gaps = self._of_stretches(first, last, start, stop)
        if not self._recent:
            return inner, gaps
        for main, key, step in reversed(self._recent):
            if main <= revision:
                break
            if key >= start and (stop is None or key < stop) and not any(_holds(gap, key) for gap in gaps):
                inner -= step
        return inner, gaps

    def _of_stretches(
        self, first: int, last: int, start: bytes, stop: bytes | None
    ) -> tuple[int, list[_Gap]]:
        """Count over more than one stretch, as the numbers stand."""
        starts, counts = self._starts, self._counts
        inner, gaps = 0, []
        whole = first
        if start != starts[first]:
            gaps.append(_Gap(start, starts[first + 1], counts[first] == _UNKNOWN))
            whole += 1
        beyond = last if stop == self._end(last - 1) else last - 1
        stretches = counts[whole:beyond]
        if _UNKNOWN not in stretches:
            inner = sum(stretches)
        else:
            for at in range(whole, beyond):
                if counts[at] == _UNKNOWN:
                    gaps.append(_Gap(starts[at], self._end(at), True))
                else:
                    inner += counts[at]
        if beyond < last:
            gaps.append(_Gap(starts[beyond], stop, counts[beyond] == _UNKNOWN))
        return inner, gaps

    def _end(self, at: int) -> bytes | None:
        return self._starts[at + 1] if at + 1 < len(self._starts) else None

    def _keep(self, new: list[bytes], numbers: list[int], stop: bytes | None, revision: int) -> None:
        """From now on these stretches are known: as counted at that revision, and what came since."""
        for main, key, step in reversed(self._recent):
            if main <= revision:
                break
            if key >= new[0] and (stop is None or key < stop):
                numbers[bisect_right(new, key) - 1] += step
        starts, counts = self._starts, self._counts
        if len(starts) + len(new) > MOST_STRETCHES:
            starts[:], counts[:] = [b""], [_UNKNOWN]
        left = bisect_left(starts, new[0])
        right = len(starts) if stop is None else bisect_left(starts, stop)
        if stop is not None and (right == len(starts) or starts[right] != stop):
            new.append(stop)
            numbers.append(_UNKNOWN)
        if left and (left == len(starts) or starts[left] != new[0]):
            counts[left - 1] = _UNKNOWN  # it ends earlier now
        starts[left:right] = new
        counts[left:right] = numbers


def _holds(gap: _Gap, key: bytes) -> bool:
    return key >= gap.start and (gap.stop is None or key < gap.stop)
