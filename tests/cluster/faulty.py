"""A node with a fault planted, and with limits that let a test reach the fault soon.

The environment says which: DIE_AT, a step of taking a snapshot in (`STEPS`) at which it kills itself;
DURABLE_SECONDS, how often it forces its state to disk and compacts its log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from connect_kv.cli.main import main
from connect_kv.interfaces import LogStore, ReplicatedState
from connect_kv.node.config import NodeConfig
from connect_kv.raft.ready import Ready
from connect_kv.raft.types import SnapshotMeta
from connect_kv.server.composition import KvServer, Seams
from connect_kv.storage.leveldb import LevelDbDisk
from connect_kv.storage.state_dirs import StateDatabase

BEFORE_NAMED = (
    "offered",
    "directory made",
    "first chunk stored",
    "last chunk stored",
    "index written",
    "synced and checked",
    "about to be named",
)
"""Steps of an install up to the batch in ``log/`` that makes the new state the current one."""
AFTER_NAMED = ("named", "old state about to go", "old state half gone", "switched", "log continued")
STEPS = (*BEFORE_NAMED, *AFTER_NAMED)

R = TypeVar("R")

_die_at = os.environ.get("DIE_AT", "")
_durable_seconds = float(os.environ.get("DURABLE_SECONDS", "0.2"))
_reached: list[str] = []


def reach(step: str) -> None:
    """This step of an install is done; perhaps it is the last thing this process does."""
    assert step in STEPS
    _reached.append(step)
    if step == _die_at:
        os.kill(os.getpid(), signal.SIGKILL)


class Disk(LevelDbDisk):
    """Stops halfway through the removal of what a snapshot replaced."""

    def remove(self, path: Path) -> None:
        if "named" in _reached and path.exists():
            reach("old state about to go")
            names = sorted(os.listdir(path))
            for name in names[: len(names) // 2]:
                (path / name).unlink()
            reach("old state half gone")
        super().remove(path)


def watched_state(state: ReplicatedState[R]) -> ReplicatedState[R]:
    stage, switch = state.stage, state.switch

    async def stage_watched(meta: SnapshotMeta, chunks: AsyncIterator[bytes]) -> str:
        reach("offered")
        name = await stage(meta, watched(chunks))
        reach("synced and checked")
        return name

    async def watched(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        reach("directory made")
        async for chunk in chunks:
            yield chunk
            # The next one is asked for when this one is stored.
            if "first chunk stored" not in _reached:
                reach("first chunk stored")
        reach("last chunk stored")

    async def switch_watched(state_name: str) -> None:
        await switch(state_name)
        reach("switched")

    state.stage, state.switch = stage_watched, switch_watched  # type: ignore[method-assign]
    return state


def watched_log(log: LogStore) -> LogStore:
    install, save = log.install, log.save

    def install_watched(state_name: str, meta: SnapshotMeta) -> None:
        reach("about to be named")
        install(state_name, meta)
        reach("named")

    def save_watched(readies: Sequence[Ready]) -> None:
        save(readies)
        if "switched" in _reached:
            reach("log continued")

    log.install, log.save = install_watched, save_watched  # type: ignore[method-assign]
    return log


def adopt_watched(self: StateDatabase, last_applied: int) -> None:
    adopt(self, last_applied)
    reach("index written")


adopt = StateDatabase.adopt


def tuned(config: NodeConfig) -> NodeConfig:
    """Falling behind takes seconds: little log is kept, even for one that has just got a snapshot."""
    return replace(config, durable_seconds=_durable_seconds, snapshot_keep_bytes=256 << 10)


if __name__ == "__main__":
    StateDatabase.adopt = adopt_watched  # type: ignore[method-assign]
    seams = Seams(disk=Disk(), tune=tuned, log=watched_log, state=watched_state)
    # By its full name: in its package the module stands behind the function of that name.
    vars(import_module("connect_kv.server.process"))["KvServer"] = partial(KvServer, seams=seams)
    main()
