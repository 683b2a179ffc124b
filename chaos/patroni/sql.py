"""Statements through `psql`, which stays open: no library is needed, and none waits longer than told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path


class Gone(Exception):
    """There is no answer: PostgreSQL is away, or takes too long."""


class Session:
    """One connection, made anew when it was lost."""

    def __init__(self, programs: Path, port: int) -> None:
        self._command = [
            str(programs / "psql"), "-qAtX", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "postgres",
        ]  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None
        self._number = 0

    async def ask(self, statement: str, timeout: float) -> str:
        """What it prints; errors of the statement print nothing. Raises Gone."""
        if self._process is None:  # not within the timeout: what is begun half is nobody's to end
            self._process = await self._started()
        try:
            async with asyncio.timeout(timeout):
                return await self._ask(self._process, statement)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            await self.close()
            raise Gone from None

    async def _started(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PGCONNECT_TIMEOUT": "2"},
        )

    async def _ask(self, process: asyncio.subprocess.Process, statement: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        self._number += 1
        end = f"end {self._number}"
        process.stdin.write(f"{statement};\n\\echo {end}\n".encode())
        await process.stdin.drain()
        text = await process.stdout.readuntil(f"{end}\n".encode())
        return text.decode().removesuffix(f"{end}\n").strip()

    async def close(self) -> None:
        """End it; what was asked last may still happen."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
            if process.stdin is not None:
                process.stdin.close()
