"""Unary calls that come together: each is decoded, counted and judged as one alone, and has no task.

Their service answers all of them at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from connect_kv.errors import NodeStopped
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.calls import Metadata, RpcFailed, UnaryCall
from connect_kv.metrics import CallCount, ClientRequests
from connect_kv.services.asked import Many
from connect_kv.services.caller import Caller

HOLD_SECONDS = 0.002
"""How long the calls of one method hold the loop before others get a turn."""
_LOOK_AT_CLOCK = 8
"""Calls between two looks; one takes some microseconds."""
_SWEEP_SECONDS = 0.1
"""Between two looks at whether somebody still waits for what has a task."""
NOBODY = Caller()


class Known:
    """What calls with the same header block have in common (`UnaryCall.kept`)."""

    __slots__ = ("caller", "version")

    def __init__(self, caller: Caller, version: str) -> None:
        self.caller = caller
        self.version = version
        """Of the API that the client names."""


class Surrounding(Protocol):
    """The part of a method's surrounding that is used here."""

    count: CallCount
    requests: ClientRequests

    @property
    def audit(self) -> object | None:
        """Who wants to know of every call, if anybody."""

    def decode(self, data: bytes) -> Any:
        """A request, which is counted. Raises Refused."""

    def encode(self, response: Any) -> bytes:
        """A response, which is counted."""

    def known(self, metadata: Metadata) -> Known:
        """Who calls."""

    def admit(self, request: Any, caller: Caller) -> bool:
        """Raises what such a call is refused with; whether it need not wait for anything."""

    def carry_out(self, request: Any, caller: Caller) -> Awaitable[Any]:
        """The call alone, from that on."""

    def succeeded(self, caller: Caller, request: Any) -> None:
        """Counts a call that ended well."""

    def cancelled(self, caller: Caller, request: Any) -> None:
        """Counts a call for whose answer nobody waits any more."""

    def failed(self, error: Exception, caller: Caller, request: Any) -> RpcFailed:
        """What its caller is told. Counted, and logged if nobody thought of it."""


class _One:
    """An `Asked` of a service, answered over the wire it came from."""

    __slots__ = ("_batch", "call", "caller", "open", "request")

    def __init__(self, batch: Batch, call: UnaryCall, caller: Caller, request: Any) -> None:
        self._batch = batch
        self.call = call
        self.caller = caller
        self.request = request
        self.open = True
        """Not answered yet, nor given a task."""

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.call.gone()

    def answer(self, response: bytes) -> None:
        """Send it."""
        self.open = False
        call, around = self.call, self._batch.around
        count = around.count
        if call.gone():
            around.cancelled(self.caller, self.request)
        else:
            count.sent += 1
            count.sent_bytes += len(response)
            if around.audit is None:
                count.ok += 1
            else:
                around.succeeded(self.caller, self.request)
        call.reply(response)

    def fail(self, error: Exception) -> None:
        """Send why not."""
        self.open = False
        self._batch.fail(error, self.call, self.caller, self.request)

    def alone(self) -> None:
        """Give it a task."""
        self.open = False
        self._batch.alone(self)


class Batch:
    """The calls of one method."""

    def __init__(self, around: Surrounding, many: Many, now: Callable[[], float]) -> None:
        """`now`: seconds on a clock that measures how long the loop is held."""
        self.around = around
        self._many = many
        self._now = now
        self._waiting: deque[UnaryCall] = deque()
        self._given: list[_One] = []
        """To the service, in this turn."""
        self._scheduled = False
        # In order: that of a set would depend on addresses in memory.
        self._tasks: dict[asyncio.Task[None], UnaryCall] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, calls: Sequence[UnaryCall]) -> None:
        """All that came in a turn. See `Route.batch`."""
        self.around.count.started += len(calls)
        self._waiting.extend(calls)
        if not self._scheduled:
            self._take()

    async def close(self) -> None:
        """End what has a task; call it once nothing comes any more."""
        if self._sweep is not None:
            self._sweep.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fail(self, error: Exception, call: UnaryCall, caller: Caller, request: Any) -> None:
        """Say why it is not answered, if anybody waits."""
        if call.gone():
            self.around.cancelled(caller, request)
            call.fail(Code.CANCELLED, "")
            return
        status = self.around.failed(error, caller, request).status
        call.fail(status.code, status.text, status.trailing)

    def alone(self, one: _One) -> None:
        """It has a task, which ends early where its client has gone."""
        task = asyncio.get_running_loop().create_task(self._alone(one))
        self._tasks[task] = one.call
        task.add_done_callback(self._forget)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._cancel_those_gone)

    def _take(self) -> None:
        given = self._given
        try:
            self._many(self._asked())
        except Exception as error:
            # A fault of ours: whoever has no answer gets one, and would wait for ever otherwise.
            for one in given:
                if one.open:
                    one.fail(error)
        given.clear()
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._take)

    def _asked(self) -> Iterator[_One]:
        """What waits, as far as it can be asked together with others and the time of this turn goes."""
        around, waiting, given = self.around, self._waiting, self._given
        until, left = self._now() + HOLD_SECONDS, _LOOK_AT_CLOCK
        while waiting:
            call = waiting.popleft()
            caller, request = NOBODY, None
            try:
                known = call.kept
                if not isinstance(known, Known):
                    known = call.kept = around.known(call.metadata)
                around.requests.note(known.version)
                caller = known.caller
                request = around.decode(call.message)
                together = around.admit(request, caller)
            except Exception as error:
                self.fail(error, call, caller, request)
            else:
                one = _One(self, call, caller, request)
                if not together:
                    one.alone()
                elif call.gone():
                    one.fail(NodeStopped())
                else:
                    given.append(one)
                    yield one
            left -= 1
            if not left:
                if self._now() > until:
                    return
                left = _LOOK_AT_CLOCK

    async def _alone(self, one: _One) -> None:
        around, caller, request = self.around, one.caller, one.request
        try:
            response = around.encode(await around.carry_out(request, caller))
        except asyncio.CancelledError:
            around.cancelled(caller, request)
            one.call.fail(Code.CANCELLED, "")
            raise
        except Exception as error:
            self.fail(error, one.call, caller, request)
        else:
            around.succeeded(caller, request)
            one.call.reply(response)

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]

    def _cancel_those_gone(self) -> None:
        self._sweep = None
        for task, call in self._tasks.items():
            if call.gone():
                task.cancel()
        if self._tasks:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._cancel_those_gone)
