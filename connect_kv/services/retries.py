"""Calls between two attempts: they wait for a leader, or for a moment, and none of them polls."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from connect_kv.events import FEW, gradually
from connect_kv.services.deadlines import WaitingCall

_BEAT_SECONDS = 0.02
"""Before what failed although a leader is known is tried again."""


class Retries:
    """In order of arrival. Each is told by its future, a few in one turn of the loop.

    While no leader is known nobody is told anything: the event that one is (`leader_changed`) wakes
    them. With a leader, one timer serves all; and where those told first come back, refused once
    more, the others need not try before the next beat: a member with too much to do is not kept busy
    by refusing.
    """

    def __init__(self, has_leader: Callable[[], bool]) -> None:
        self._has_leader = has_leader
        # Whoever leaves takes its place out: without a leader for hours, many come and go.
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._telling = False
        self._came_back = False
        self._closed: Callable[[], Exception] | None = None

    async def wait(self, call: WaitingCall | None, *, again: bool) -> None:
        """Until an attempt makes sense; `again`: it is not the first time for this caller.

        Raises DeadlineExceeded if the time of `call` ends before, and what `close` was given.
        """
        if self._closed is not None:
            raise self._closed()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        self._came_back = self._came_back or again
        if not self._telling:
            self._set_timer()
        try:
            await (future if call is None else call.waiting(future))
        finally:
            self._waiting.pop(future, None)

    def leader_changed(self) -> None:
        """Another leader is known, or none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._telling and self._has_leader():
            self._tell()

    def close(self, error: Callable[[], Exception]) -> None:
        """Nothing is tried any more: who waits, and who comes, is told that error."""
        self._closed = error
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, OrderedDict()

        def tell(future: asyncio.Future[None]) -> None:
            if not future.done():
                future.set_exception(error())

        gradually(waiting, tell)

    def _set_timer(self) -> None:
        if self._timer is None and self._waiting and self._has_leader():
            self._timer = asyncio.get_running_loop().call_later(_BEAT_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._came_back = False
        told = 0
        while self._waiting and told < FEW:
            future, _ = self._waiting.popitem(last=False)
            if not future.done():
                future.set_result(None)
                told += 1
        self._telling = bool(self._waiting)
        if self._telling:
            # Behind those just told: they run before it, and are back by then if they were refused at once.
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._telling = False
        if self._has_leader() and not self._came_back:
            self._tell()
        else:
            self._set_timer()
