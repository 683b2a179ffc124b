"""The session as a request channel: gathers concurrent calls into batches on one stream, and keeps it
alive across broken streams and dead members.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from connect_kv import errors
from connect_kv.client import trouble
from connect_kv.client.endpoints import LOOK_AHEAD, Endpoint, Endpoints
from connect_kv.client.failures import (
    SESSION_EXPIRED,
    UNIMPLEMENTED,
    UNKNOWN,
    CallFailed,
    Fate,
    fate,
    refusal,
    type_of,
)
from connect_kv.client.session_state import SessionState
from connect_kv.client.tasks import ended, first_to_end
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.session_pb2 import SessionReplies

if TYPE_CHECKING:
    from connect_kv.client import stubs

logger = logging.getLogger(__name__)

OPEN_TIMEOUT = 3.0
"""Seconds a member may take to answer the first batch of a stream."""
STALL_TIMEOUT = 3.0
"""Seconds without any answer, though some are due, after which another member is asked."""
CLOSE_TIMEOUT = 1.0
"""Seconds that closing the session may take; one not closed expires by itself."""
GATHER_FRACTION = 8
GATHER_PAUSE = 0.001
"""A batch smaller than this part of what is on its way waits this many seconds for more."""

Stream: TypeAlias = "stubs.StreamCall[bytes, SessionReplies]"
"""Takes encoded SessionRequests."""


class _StreamOver(Exception):
    """This stream is of no more use; the session goes on with another."""


class _Trouble(_StreamOver):
    """The member could not carry out a command, or does not answer; says which, in words of `trouble`."""


class Session:
    """Carries commands, each exactly once, and reads. Use on one event loop, between start and close."""

    def __init__(self, endpoints: Endpoints, *, ttl: int) -> None:
        self._endpoints = endpoints
        self._state = SessionState(ttl, len(endpoints.all))
        self._work = asyncio.Event()
        """There may be something to send."""
        self._sweep: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._sweep_due = math.inf
        self._pause: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._stall_timeout = STALL_TIMEOUT
        self._last_progress = 0.0
        self._stream: Stream | None = None
        """The present stream, once it is open."""

    def start(self) -> None:
        """Begin. The session is opened in the cluster by the first call."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="connect-kv session")

    def call(self, command: Command, timeout: float, *, writes: bool) -> asyncio.Future[Result]:
        """See RequestChannel. A cancelled caller stops waiting; a command it already sent may still run."""
        return self.call_encoded(command.SerializeToString(), timeout, writes=writes)

    def call_encoded(self, request: bytes, timeout: float, *, writes: bool) -> asyncio.Future[Result]:
        """The same for a Command that is encoded already, without a number."""
        if self._task is None or self._task.done():
            raise errors.ClientNotOpen("the client was closed")
        if timeout <= 0:
            raise errors.Unavailable("no time was given to answer")
        future: asyncio.Future[Result] = self._loop.create_future()
        deadline = self._loop.time() + timeout
        self._state.add(request, future, deadline, writes=writes)
        if deadline < self._sweep_due:
            self._sweep_at(deadline)
            self._look_at(deadline - min(LOOK_AHEAD, timeout / 2))
        if not self._work.is_set():
            self._gather()
        return future

    async def close(self) -> None:
        """End the session in the cluster if that is quickly done, and fail what still waits."""
        if self._task is None:
            return
        if self._stream is not None and not self._task.done():
            goodbye = Command()
            goodbye.session_close.SetInParent()
            with suppress(errors.ConnectKvError):
                await self.call(goodbye, CLOSE_TIMEOUT, writes=True)
        await ended(self._task)
        for timer in (self._sweep, self._look, self._pause):
            if timer is not None:
                timer.cancel()
        self._state.fail_all(errors.ClientNotOpen("the client was closed"))

    async def _run(self) -> None:
        """One stream after another, whenever there is anything to send."""
        while True:
            if not self._state.has_work:
                self._work.clear()
                await self._work.wait()
            endpoint, wait = self._endpoints.pick(self._loop.time())
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                await self._use(endpoint)
            except _Trouble as trouble:
                self._blame(endpoint, str(trouble))
            except _StreamOver:
                pass
            except CallFailed as error:
                self._judge(endpoint, error)
            except Exception as error:
                # Callers must hear of it now, not at their deadlines; what they sent may have run.
                logger.exception("session: unexpected failure")
                self._blame(endpoint, repr(error))
                self._state.fail_all(errors.Unavailable(repr(error)))
                self._state.expired = True
            finally:
                self._stream = None
                self._state.broken()

    async def _use(self, endpoint: Endpoint) -> None:
        """Open or resume the session on this member and work until something ends that."""
        stream = await endpoint.stubs.session()
        try:
            await self._open(stream)
            self._stream = stream
            self._endpoints.reached(endpoint)
            self._last_progress = self._loop.time()
            await first_to_end(self._send(stream), self._receive(endpoint, stream), self._watch_progress())
        finally:
            stream.cancel()

    async def _open(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                await stream.write(self._state.head())
                first = await stream.read()
        except TimeoutError:
            raise _Trouble(trouble.SILENT) from None
        self._state.opened(first)
        if self._state.expired:
            raise _StreamOver
        self._state.replies(first, stream.logged_out)

    async def _send(self, stream: Stream) -> None:
        self._work.set()
        while True:
            await self._work.wait()
            self._work.clear()
            batch, count = self._state.next_batch()
            if not count:
                continue
            if self._state.in_flight == count:
                self._last_progress = self._loop.time()
            await stream.write(batch)
            self._gather()

    def _gather(self) -> None:
        """Send what waits, now or a little later.

        If few wait while many are on their way, answers will soon bring more callers: without this
        pause a thousand callers would end up sending batches of one.
        """
        queued = self._state.queued
        if not queued:
            return
        if queued >= self._state.in_flight // GATHER_FRACTION:
            self._work.set()
        elif self._pause is None:
            self._pause = self._loop.call_later(GATHER_PAUSE, self._pause_over)

    def _pause_over(self) -> None:
        self._pause = None
        self._work.set()

    async def _receive(self, endpoint: Endpoint, stream: Stream) -> None:
        state = self._state
        while True:
            replies = await stream.read()
            self._last_progress = self._loop.time()
            self._stall_timeout = STALL_TIMEOUT
            state.replies(replies, stream.logged_out)
            if state.troubled is None:
                self._endpoints.worked(endpoint)
            if state.troubled is not None:
                raise _Trouble(trouble.of(state.troubled))
            if state.expired and state.in_flight <= 0:  # every command has been told so by now
                raise _StreamOver
            self._gather()

    async def _watch_progress(self) -> None:
        """Leave a member that is silent for too long; be more patient each time."""
        while True:
            await asyncio.sleep(self._stall_timeout / 4)
            idle = self._loop.time() - self._last_progress
            if self._state.in_flight > 0 and idle > self._stall_timeout:
                self._stall_timeout *= 2
                raise _Trouble(trouble.SILENT)

    def _judge(self, endpoint: Endpoint, error: CallFailed) -> None:
        """The stream ended with a status: ask another member, or give up what waits."""
        code, text = error.code, error.text
        if type_of(error) == SESSION_EXPIRED:
            self._state.expired = True
        elif fate(code, text) is Fate.REFUSED and code != UNKNOWN:
            self._state.fail_all(
                errors.Refused(code, f"{endpoint.address} {_without_sessions(error)}")
                if code == UNIMPLEMENTED
                else refusal(code, text)
            )
            self._state.expired = True  # whatever the reason, resuming it would be refused again
        else:
            self._blame(endpoint, trouble.of(error))

    def _blame(self, endpoint: Endpoint, why: str) -> None:
        """Note why this member was left, and leave it alone for a while."""
        logger.debug("session: leaving a member", extra={"member": endpoint.address, "reason": why})
        self._endpoints.failed(endpoint, self._loop.time(), why)

    def _sweep_at(self, when: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep = self._loop.call_at(when, self._expire)
        self._sweep_due = when

    def _expire(self) -> None:
        """One timer for all calls: they share deadlines, so it seldom fires."""
        self._sweep = None
        self._sweep_due = math.inf
        upcoming = self._state.expire(self._loop.time(), self._endpoints.account())
        if upcoming is not None:
            self._sweep_at(upcoming)
            self._look_at(upcoming - LOOK_AHEAD)

    def _look_at(self, when: float) -> None:
        if self._look is not None:
            self._look.cancel()
        self._look = self._loop.call_at(when, self._look_around)

    def _look_around(self) -> None:
        """Before calls are given up: find out why. Those that share the deadline were mostly answered."""
        self._look = None
        if self._state.waits_until(self._sweep_due):
            self._endpoints.look(max(0.1, self._sweep_due - self._loop.time()))


def _without_sessions(error: CallFailed) -> str:
    words = trouble.of(error)
    return words if words == trouble.NOT_FOR_CLIENTS else "does not offer sessions"
