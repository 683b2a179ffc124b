"""A node that notes when each write of its log began and how long it took, fsync included.

At its end it writes them to the file that LOG_TIMES names: pairs of doubles, seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import atexit
import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from connect_kv.cli.main import main
from connect_kv.raft.ready import Ready
from connect_kv.storage.log_store import EngineLogStore

VARIABLE = "LOG_TIMES"


def read(path: Path) -> list[tuple[float, float]]:
    """(began, took) of each write."""
    numbers = array("d", path.read_bytes())
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _note() -> None:
    save = EngineLogStore.save
    times = array("d")

    def timed(self: EngineLogStore, readies: Sequence[Ready]) -> None:
        began = time.monotonic()
        save(self, readies)
        times.extend((began, time.monotonic() - began))

    EngineLogStore.save = timed  # type: ignore[method-assign]
    atexit.register(lambda: Path(os.environ[VARIABLE]).write_bytes(times.tobytes()))


if __name__ == "__main__":
    _note()
    main()
