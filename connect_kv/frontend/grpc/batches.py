"""Unary calls that come together: each is decoded, counted and judged as one alone, and has no task.

Their service answers all of them at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from connect_kv.auth.authenticator import NOTHING
from connect_kv.errors import NodeStopped, Refused
from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.calls import Metadata, RpcFailed, UnaryCall
from connect_kv.metrics import CallCount, ClientRequests, Times
from connect_kv.services.asked import Many
from connect_kv.services.caller import Caller

HOLD_SECONDS = 0.002
"""How long the calls of one method hold the loop before others get a turn."""
_LOOK_AT_CLOCK = 8
"""Calls between two looks; one takes some microseconds."""
_SWEEP_SECONDS = 0.1
"""Between two looks at whether somebody still waits for what has a task."""


class Known:
    """What calls with the same header block have in common (`UnaryCall.kept`)."""

    __slots__ = ("caller", "plain", "times", "version")

    def __init__(self, caller: Caller, version: str) -> None:
        self.caller = caller
        self.version = version
        """Of the API that the client names."""
        self.plain = caller.credentials is NOTHING and not caller.trace
        """Whether nothing was shown that has to be looked at, and no trace is to be told."""
        self.times: Times | None = None
        """Where such calls are counted, once it was looked up."""


class Surrounding(Protocol):
    """The part of a method's surrounding that is used here."""

    count: CallCount
    requests: ClientRequests

    @property
    def audit(self) -> object | None:
        """Who wants to know of every call, if anybody."""

    def parse(self, data: bytes) -> Any:
        """A request. Raises Refused."""

    def encode(self, response: Any) -> bytes:
        """A response, which is counted."""

    def known(self, metadata: Metadata) -> Known:
        """Who calls."""

    def free(self) -> bool:
        """Whether nobody is refused now, whatever the call, nor has to wait before it is asked."""

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

    __slots__ = ("_batch", "_request", "call", "caller", "encoded", "open")

    def __init__(self, batch: Batch, call: UnaryCall, caller: Caller) -> None:
        self._batch = batch
        self._request: Any = None
        self.call = call
        self.caller = caller
        self.encoded = call.message
        self.open = True
        """Not answered yet, nor given a task."""

    @property
    def request(self) -> Any:
        """What is asked."""
        if self._request is None:
            self._request = self._batch.around.parse(self.encoded)
        return self._request

    @property
    def seen(self) -> Any:
        """The request for who writes it down; None where it cannot be decoded."""
        try:
            return None if self._batch.around.audit is None else self.request
        except Refused:
            return None

    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.call.gone()

    def answer(self, response: bytes) -> None:
        """Send the encoded response."""
        self.open = False
        call, around = self.call, self._batch.around
        if call.gone():
            around.cancelled(self.caller, self.seen)
        else:
            count = around.count
            count.sent += 1
            count.sent_bytes += len(response)
            if around.audit is None:
                count.ok += 1
            else:
                around.succeeded(self.caller, self.seen)
        call.reply(response)

    def fail(self, error: Exception) -> None:
        """Send why not."""
        self.open = False
        call, around = self.call, self._batch.around
        if call.gone():
            around.cancelled(self.caller, self.seen)
            call.fail(Code.CANCELLED, "")
            return
        status = around.failed(error, self.caller, self.seen).status
        call.fail(status.code, status.text, status.trailing)

    def alone(self) -> None:
        """Have this call answered by itself, in a task."""
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
        around, waiting, given, count = self.around, self._waiting, self._given, self.around.count
        until, left = self._now() + HOLD_SECONDS, _LOOK_AT_CLOCK
        free = around.free()  # as long as this turn goes
        while waiting:
            call = waiting.popleft()
            known = call.kept
            if not isinstance(known, Known):
                known = call.kept = around.known(call.metadata)
            if known.times is None:
                known.times = around.requests.of(known.version)
            known.times.times += 1
            one = _One(self, call, known.caller)
            count.received += 1
            count.received_bytes += len(one.encoded)
            if call.gone():
                one.fail(NodeStopped())
            elif (free and known.plain) or self._admitted(one):
                given.append(one)
                yield one
            left -= 1
            if not left:
                if self._now() > until:
                    return
                left = _LOOK_AT_CLOCK

    def _admitted(self, one: _One) -> bool:
        """Whether it can be asked with others; if not, it is answered or has a task."""
        try:
            if self.around.admit(one.request, one.caller):
                return True
        except Exception as error:
            one.fail(error)
        else:
            one.alone()
        return False

    async def _alone(self, one: _One) -> None:
        around, caller, request = self.around, one.caller, one.request
        try:
            response = around.encode(await around.carry_out(request, caller))
        except asyncio.CancelledError:
            around.cancelled(caller, request)
            one.call.fail(Code.CANCELLED, "")
            raise
        except Exception as error:
            one.fail(error)
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
