"""Whether a directory may hold other names than at the last look, without looking at them.

To list a directory gives the interpreter lock away five times. On the thread that has just synced, beside a
loop that wants the lock, that cost more than the sync.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SETTLED_SECONDS = 3.0
"""A time of change that was seen so long ago is not given to another change: clocks of file systems tick
every few milliseconds, the coarsest every two seconds."""


class Names:
    """Of one directory."""

    def __init__(self, path: Path, now: Callable[[], float] = time.monotonic) -> None:
        """`now`: seconds. Not the wall clock, which file systems need not share."""
        self._path = path
        self._now = now
        self._changed = -1
        self._seen = 0.0
        self._settled = False

    def may_have_changed(self) -> bool:
        """Since this was asked last; look at them then. Raises OSError."""
        before = self._now()
        changed = os.stat(self._path).st_mtime_ns
        if changed != self._changed:
            self._changed, self._seen, self._settled = changed, self._now(), False
        elif self._settled:
            return False
        else:
            self._settled = before - self._seen > SETTLED_SECONDS
        return True
