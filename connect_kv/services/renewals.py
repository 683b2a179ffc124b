"""Lease keep-alives of all streams of this node, joined into few proposals.

A renewal is replicated (each member notes when it applied it), so ten thousand clients renewing
every few seconds must not be ten thousand log entries: while one proposal is under way, whatever
arrives waits for the next, which carries all of it.
"""

from __future__ import annotations

import asyncio

from connect_kv.errors import NodeStopped
from connect_kv.rpc.command_pb2 import LeaseRenew
from connect_kv.services.executor import CommandExecutor, field_number

_RENEW = field_number("lease_renew")
_MAX_IDS = 4096
"""Of one proposal, so that one apply stays short."""


class Renewals:
    """Renews leases in batches, one batch under way at a time."""

    def __init__(self, executor: CommandExecutor) -> None:
        self._executor = executor
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def renew(self, lease: int) -> int:
        """The granted TTL in seconds once the renewal is applied here, 0 for an unknown lease.

        Raises what `CommandExecutor.execute` does, NodeStopped after `close`.
        """
        if self._closed:
            raise _stopped()
        future = self._waiting.get(lease)
        if future is None:
            future = self._waiting[lease] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="lease renewals")
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Stop. Whoever waits, and who comes, is told NodeStopped: a cancelled future would look to them as
        if they had been cancelled themselves.
        """
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for future in self._waiting.values():
            _settle(future, _stopped())
        self._waiting.clear()

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # let every stream that is ready join
                ids = list(self._waiting)[:_MAX_IDS]
                await self._propose({lease: self._waiting.pop(lease) for lease in ids})
        finally:
            self._task = None

    async def _propose(self, batch: dict[int, asyncio.Future[int]]) -> None:
        try:
            result = await self._executor.execute(_RENEW, LeaseRenew(ids=batch).SerializeToString())
        except asyncio.CancelledError:
            for future in batch.values():
                _settle(future, _stopped())
            raise
        except Exception as error:
            for future in batch.values():
                _settle(future, error)
            return
        for future, ttl in zip(batch.values(), result.lease_renew.ttls, strict=True):
            if not future.done():
                future.set_result(ttl)


def _stopped() -> NodeStopped:
    return NodeStopped("this node is stopping")


def _settle(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waited may have gone: then nobody asks for it
