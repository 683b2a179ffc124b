"""`connect-kv serve` on a machine whose disk can be made slow or sick, and whose wall clock can be set.

What chaos runs its nodes with. The file named by CONNECT_KV_CHAOS_DISK is read at every synced write:
``slow SECONDS`` lets it take so long, ``fail`` does it and then reports an error, as a disk does that lost
its cache. The one named by CONNECT_KV_CHAOS_CLOCK holds the seconds by which the wall clock is ahead.
"""

from __future__ import annotations

import errno
import os
import runpy
import time
from pathlib import Path
from typing import Any

from connect_kv.node import health
from connect_kv.node.clock import SystemClock
from connect_kv.storage.leveldb import LevelDbEngine

DISK = "CONNECT_KV_CHAOS_DISK"
CLOCK = "CONNECT_KV_CHAOS_CLOCK"
LOW_WATER_BYTES = 16 << 20
"""The disks of a chaos run are small."""

_write = LevelDbEngine.write


def write(self: LevelDbEngine, batch: Any, sync: bool) -> None:
    """As the real one, with what is planted."""
    kind, _, amount = planted(DISK).partition(" ") if sync else ("", "", "")
    if kind == "slow":
        time.sleep(float(amount))
    if kind != "fail":
        _write(self, batch, sync)
        return
    with self._writing():
        _write(self, batch, sync)
        raise OSError(errno.EIO, "Input/output error (planted)")


def wall(self: SystemClock) -> int:
    """As the real one shows it, with what it was set ahead."""
    return time.time_ns() + int(float(planted(CLOCK) or 0) * 1e9)


def planted(variable: str) -> str:
    """What the file says; nothing if there is none."""
    try:
        return Path(os.environ[variable]).read_text()
    except (OSError, KeyError):
        return ""


if __name__ == "__main__":
    LevelDbEngine.write = write  # type: ignore[method-assign]  # the planted fault
    SystemClock.wall = wall  # type: ignore[method-assign]  # likewise
    health.LOW_WATER_BYTES = LOW_WATER_BYTES
    runpy.run_module("connect_kv.cli.main", run_name="__main__")
