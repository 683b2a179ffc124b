"""Processes that do jobs of filling (`filling_job`) beside each other.

One alone would not use a second processor: the interpreter runs one thread at a time. Small work is done in
this process: starting another takes longer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

from connect_kv.errors import ConnectKvError, CorruptStorage, StorageError

_LINE_BYTES = 64 << 20
"""A result names every table."""
MOST = 4
"""More gain little: the disk and the comparison at the end are then what is waited for."""


def processors() -> int:
    """How many this process may use, at most `MOST`."""
    return min(len(os.sched_getaffinity(0)), MOST)


class Filler:
    """One such process. A context manager: leaving it ends the process."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Filler:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "connect_kv.backup.filling_job",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def do(self, **job: object) -> Mapping[str, Any]:
        """One job, to its end. Raises CorruptStorage, ValueError, StorageError, OSError."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        await process.stdin.drain()
        while line := await process.stdout.readline():
            answer = json.loads(line)
            if "done" in answer:
                self._told(answer["done"])
            elif "result" in answer:
                result: Mapping[str, Any] = answer["result"]
                return result
            else:
                raise _error(answer)
        raise ConnectKvError(f"a process that fills the database ended with {await process.wait()}")


async def fillers(stack: AsyncExitStack, count: int, told: Callable[[int], None]) -> Sequence[Filler]:
    """So many; they end with the stack."""
    return [await stack.enter_async_context(Filler(told)) for _ in range(count)]


def _error(answer: Mapping[str, Any]) -> Exception:
    if "damaged" in answer:
        return CorruptStorage(*answer["damaged"])
    if "failed" in answer:
        number, text, name = answer["failed"]
        return StorageError(str(name), f"{text} ({number})")
    return ValueError(answer["invalid"])
