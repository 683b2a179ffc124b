"""Queries of user machines: those that wait together run in one call on the apply thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from connect_kv.errors import NodeStopped
from connect_kv.interfaces import Worker

Run = Callable[[str, str, bytes, int], bytes]
"""Runs one query, on the apply thread: (machine, method, arguments, at a time not before)."""


class _Query(NamedTuple):
    machine: str
    method: str
    arguments: bytes
    date: int
    answer: asyncio.Future[bytes]


class Queries:
    """Collects queries while earlier ones run, so that a thousand cost few changes of thread."""

    def __init__(self, worker: Worker, run: Run) -> None:
        self._worker = worker
        self._run = run
        self._waiting: list[_Query] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def ask(self, machine: str, method: str, arguments: bytes, date: int) -> bytes:
        """Run a query after everything given to the apply thread before. Raises what it raises."""
        if self._closed:
            raise NodeStopped("this node is stopping")
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Query(machine, method, arguments, date, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await answer

    async def close(self) -> None:
        """Refuse new ones, and wait until those accepted are answered."""
        self._closed = True
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        try:
            while self._waiting:
                queries, self._waiting = self._waiting, []
                await self._answer(queries)
        finally:
            self._task = None
            for query in self._waiting:
                if not query.answer.done():
                    query.answer.set_exception(NodeStopped("this node is stopping"))
            self._waiting.clear()

    async def _answer(self, queries: list[_Query]) -> None:
        try:
            answers = await self._worker.run(lambda: [self._one(query) for query in queries])
        except BaseException as error:
            for query in queries:
                if not query.answer.done():
                    query.answer.set_exception(NodeStopped(f"this node has failed: {error}"))
            return
        for query, answer in zip(queries, answers, strict=True):
            if query.answer.done():
                continue  # its caller has left
            if isinstance(answer, Exception):
                query.answer.set_exception(answer)
            else:
                query.answer.set_result(answer)

    def _one(self, query: _Query) -> bytes | Exception:
        try:
            return self._run(query.machine, query.method, query.arguments, query.date)
        except Exception as error:
            return error
