"""Calls that are submitted until they get through: the time limit, and the retries that are safe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from connect_kv.errors import NodeStopped, NoLeader, NotProposed, OutcomeUnknown, Overloaded, TimedOut
from connect_kv.events import Signal
from connect_kv.services.deadlines import DeadlineExceeded, Deadlines, WaitingCall
from connect_kv.services.retries import Retries

T = TypeVar("T")

MOST_WAITING = 8192
"""Of the unary calls and session batches of one member. A call that waits costs gRPC about 20 kB."""
MOST_WAITING_BYTES = 64 << 20
"""Of the proposals among them that wait for a leader."""
Retried = tuple[type[Exception], ...]
CERTAIN: Retried = (NoLeader, NotProposed)
"""What was not proposed, and never will be."""
TEMPORARY: Retried = (NoLeader, NotProposed, OutcomeUnknown, Overloaded)
"""For what may be proposed twice."""


class Proposer(Protocol):
    """The part of a RaftNode that proposals and reads need: services are tested with small ones."""

    @property
    def term(self) -> int:
        """Current term."""

    @property
    def leader_id(self) -> int | None:
        """Who leads, if known."""

    @property
    def leader_changed(self) -> Signal:
        """Another leader is known, or none any more."""

    def submit(self, payload: bytes, count: int = 1) -> asyncio.Future[Sequence[bytes]]:
        """Replicate and apply; resolves with one encoded Result per command. May raise at once."""

    def submit_read(self) -> asyncio.Future[int]:
        """Resolves when everything acknowledged before is visible here. May raise at once."""


@dataclass(slots=True)
class Attempt(Generic[T]):
    """What is to get through, and what is known of it."""

    submit: Callable[[], asyncio.Future[T]]
    """May raise at once."""
    late: type[OutcomeUnknown | TimedOut]
    """What a caller is told whose time ended while it was under way."""
    retry: Retried = CERTAIN
    """After which errors it may be submitted again."""
    size: int = 0
    """Bytes it holds while it waits for a leader."""
    under_way: bool = False
    doubtful: bool = False
    """It may have taken effect by an earlier attempt."""

    def missed(self, error: Exception) -> None:
        """It came to nothing for that reason, and may be tried again."""
        self.under_way = self.doubtful = self.doubtful or isinstance(error, OutcomeUnknown)

    def too_late(self, why: str) -> Exception:
        """What its caller is told when its time is over."""
        return (self.late if self.under_way else NoLeader)(why)


class Attempts:
    """Counts the calls that wait, and submits for them. On the loop only."""

    def __init__(
        self,
        node: Proposer,
        deadlines: Deadlines,
        retries: Retries,
        *,
        max_waiting: int,
        max_waiting_bytes: int,
        why: Callable[[], str],
    ) -> None:
        """See `services.executor.CommandExecutor`."""
        self._node = node
        self._deadlines = deadlines
        self._retries = retries
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting = self._waiting_bytes = 0
        self._why = why
        # In order: that of a set would depend on addresses in memory.
        self._tasks: dict[asyncio.Task[None], None] = {}

    def enter(self, calls: int) -> int:
        """So many calls come together; how many of them may wait: memory stays bounded."""
        taken = min(calls, max(0, self._max_waiting - self._waiting))
        self._waiting += taken
        return taken

    def overloaded(self) -> Overloaded:
        """What the others are told at once: who is refused early can go elsewhere."""
        return Overloaded(f"{self._waiting} calls are waiting already")

    async def through(self, attempt: Attempt[T]) -> T:
        """See `CommandExecutor.through`."""
        if not self.enter(1):
            raise self.overloaded()
        try:
            with self._deadlines.begin() as call:
                return await self._repeat(call, attempt)
        finally:
            self._waiting -= 1

    def begin(
        self,
        attempt: Attempt[T],
        calls: int,
        answered: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> WaitingCall:
        """The same for so many calls that have entered, which leave when it ends: what comes of it is told
        once, in a later turn of the loop. `WaitingCall.end` ends it before its time.

        A task is taken only where the first attempt is not enough.
        """
        call = self._deadlines.begin()
        if self._node.leader_id is None:
            self._spawn(self._go_on(call, attempt, calls, answered, failed))
            return call

        def end(future: asyncio.Future[T]) -> None:
            error = NodeStopped("it was given up") if future.cancelled() else future.exception()
            if isinstance(error, attempt.retry):
                attempt.missed(error)
                self._spawn(self._go_on(call, attempt, calls, answered, failed, tried=True))
                return
            self._deadlines.forget(call)
            self._waiting -= calls
            if error is None:
                answered(future.result())
            else:
                failed(self._told(attempt, error))

        attempt.under_way = True
        try:
            future = attempt.submit()
        except Exception as error:
            future = asyncio.get_running_loop().create_future()
            future.set_exception(error)
        call.waiting(future).add_done_callback(end)
        return call

    async def close(self) -> None:
        """End what still has a task: whoever waits for it is told so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _go_on(
        self,
        call: WaitingCall,
        attempt: Attempt[T],
        calls: int,
        answered: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        tried: bool = False,
    ) -> None:
        try:
            with call:
                result = await self._repeat(call, attempt, tried=tried)
        except asyncio.CancelledError:
            stopping = NodeStopped("this node is stopping")
            failed(attempt.too_late(self._why()) if attempt.under_way else stopping)
            raise
        except Exception as error:
            failed(error)
        else:
            answered(result)
        finally:
            self._waiting -= calls

    async def _repeat(self, call: WaitingCall, attempt: Attempt[T], *, tried: bool = False) -> T:
        """Submit and wait in turns, beginning with the one or the other."""
        again = False
        try:
            while not call.over:
                # None is submitted before a leader is known: a call whose time ends meanwhile
                # certainly had no effect.
                if not tried and self._node.leader_id is not None:
                    attempt.under_way = True
                    try:
                        return await call.waiting(attempt.submit())
                    except attempt.retry as error:
                        attempt.missed(error)
                tried = False
                await self._wait(call, attempt.size, again)
                again = True
        except DeadlineExceeded:
            pass
        raise attempt.too_late(self._why())

    async def _wait(self, call: WaitingCall, size: int, again: bool) -> None:
        if self._waiting_bytes + size > self._max_waiting_bytes:
            raise Overloaded(f"proposals of {self._waiting_bytes} bytes are waiting already")
        self._waiting_bytes += size
        try:
            await self._retries.wait(call, again=again)
        finally:
            self._waiting_bytes -= size

    def _told(self, attempt: Attempt[T], error: BaseException) -> Exception:
        if isinstance(error, DeadlineExceeded):
            return attempt.too_late(self._why())
        return error if isinstance(error, Exception) else NodeStopped(str(error))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
