"""Watches: changes as they happen, from any member, without gap or duplicate."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from connect_kv import errors
from connect_kv.client import trouble
from connect_kv.client.endpoints import Endpoint, Endpoints
from connect_kv.client.failures import (
    DATA_LOSS,
    RESOURCE_EXHAUSTED,
    UNKNOWN,
    CallFailed,
    EndedHere,
    Fate,
    fate,
    from_rpc,
    refusal,
)
from connect_kv.client.login import logged_out
from connect_kv.rpc.kv_pb2 import Event
from connect_kv.rpc.watch_pb2 import (
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

if TYPE_CHECKING:
    from connect_kv.client import stubs

__all__ = ["Watch"]

CREATE_TIMEOUT = 3.0
"""Seconds a member may take to confirm a watch before another is asked."""

PROGRESS_SECONDS = 10.0
"""A watch that heard nothing for so long asks how far it has seen: so much of the history must be kept for it
to go on at another member, however long ago its last event was."""
_PROGRESS = WatchRequest(progress_request=WatchProgressRequest())

Stream: TypeAlias = "stubs.StreamCall[WatchRequest, WatchResponse]"


class Watch:
    """One watch: an async iterator of events, in the order of their revisions.

    It survives the member it runs on: it goes on at another from the revision up to which it has seen
    everything, as long as that is not compacted away. While it is iterated, this is confirmed every
    PROGRESS_SECONDS, events or not. As a context manager, it is in force when the body begins. One task
    iterates. Raises Compacted, Refused.
    """

    def __init__(self, endpoints: Endpoints, request: WatchCreateRequest, timeout: float) -> None:
        self._endpoints = endpoints
        self._request = request
        self._timeout = timeout
        self._next_revision = request.start_revision
        """What a new stream starts from; 0 until the first one has said where "now" is."""
        self._ready: deque[Event] = deque()
        self._fragments: list[Event] = []
        self._endpoint: Endpoint | None = None
        self._stream: Stream | None = None
        self._asking: asyncio.Task[None] | None = None
        """Asks for progress on the stream."""
        self._waiting = False
        """Somebody iterates: an answer will be read."""
        self._heard = False
        """Something was received since progress was thought of last."""
        self._closed = False

    @property
    def next_revision(self) -> int:
        """Every change below this revision was seen; 0 before the watch is in force.

        Changes already received but not yet iterated count as seen.
        """
        return self._next_revision

    async def __aenter__(self) -> Self:
        """Wait until the watch is in force. Raises Unavailable after the client's timeout."""
        await self._connect(asyncio.get_running_loop().time() + self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            if self._closed:
                raise StopAsyncIteration
            if self._stream is None:
                first = self._next_revision == 0 or self._endpoint is None
                now = asyncio.get_running_loop().time()
                await self._connect(now + self._timeout if first else None)
            await self._receive()
        return self._ready.popleft()

    async def close(self) -> None:
        """End it. Events already received can still be iterated."""
        self._closed = True
        self._drop()

    async def _connect(self, deadline: float | None) -> None:
        """Have the watch in force at some member; without a deadline, try until that works."""
        looking = None if deadline is None else self._endpoints.look_before(deadline, self._timeout)
        try:
            await self._try_all(deadline)
        finally:
            if looking is not None:
                looking.cancel()

    async def _try_all(self, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        while self._stream is None and not self._closed:
            endpoint, wait = self._endpoints.pick(loop.time())
            if deadline is not None and loop.time() + wait >= deadline:
                why = self._endpoints.account() or "no reason is known"
                raise errors.Unavailable(f"no member took the watch within {self._timeout:g} s: {why}")
            if wait > 0:
                await asyncio.sleep(wait)
            self._endpoint = endpoint
            try:
                async with asyncio.timeout(CREATE_TIMEOUT):
                    await self._create(endpoint)
            except TimeoutError:
                self._lost(trouble.SILENT)
            except CallFailed as error:
                self._judge(error)

    async def _create(self, endpoint: Endpoint) -> None:
        request = WatchCreateRequest()
        request.CopyFrom(self._request)
        request.start_revision = self._next_revision
        # A member without a leader must not keep us waiting for events that never come.
        self._stream = await endpoint.stubs.watch(metadata=(("hasleader", "true"),))
        try:
            await self._stream.write(WatchRequest(create_request=request))
            while self._stream is not None:
                response = await self._read(self._stream)
                self._take(response)
                if response.created:
                    self._endpoints.worked(endpoint)
                    self._asking = asyncio.create_task(self._ask_progress(self._stream))
                    return
        except BaseException:
            self._drop()
            raise

    async def _receive(self) -> None:
        stream = self._stream
        if stream is None:
            return
        self._waiting = True
        try:
            self._take(await self._read(stream))
        except asyncio.CancelledError:
            # The call ends with a read that is given up: the next iteration begins another where this stood.
            self._drop()
            raise
        except CallFailed as error:
            self._judge(error)
        finally:
            self._waiting = False

    async def _ask_progress(self, stream: Stream) -> None:
        """While nothing comes, ask how far this watch has seen; the answer moves the point of resumption."""
        with suppress(CallFailed):  # whoever reads hears of it too
            while True:
                self._heard = False
                await asyncio.sleep(PROGRESS_SECONDS)
                if self._waiting and not self._heard:
                    await stream.write(_PROGRESS)

    async def _read(self, stream: Stream) -> WatchResponse:
        try:
            return await stream.read()
        except EndedHere:
            if self._closed:
                raise StopAsyncIteration from None
            raise errors.ClientNotOpen("the client was closed") from None

    def _take(self, response: WatchResponse) -> None:
        """Note how far the watch has come, and what it saw."""
        self._heard = True
        if response.canceled:
            if self._stream is not None and self._stream.logged_out(response.cancel_reason):
                raise logged_out()  # another stream goes on where this one stood
            self._drop()
            self._closed = True
            if response.compact_revision or "compacted" in response.cancel_reason:
                raise errors.Compacted(
                    f"revision {self._next_revision} is compacted away", response.compact_revision
                )
            raise refusal(3, response.cancel_reason or "the watch was ended by the server")
        revision = response.header.revision
        if response.created:
            if self._next_revision == 0:
                self._next_revision = revision + 1
            return
        if not response.events:
            if not response.fragment:  # progress: everything up to there has been sent
                self._next_revision = max(self._next_revision, revision + 1)
            return
        # One revision may be cut into fragments: it is given out only when it is whole, because
        # resuming after half of it would lose the other half.
        self._fragments.extend(response.events)
        if response.fragment:
            return
        events, self._fragments = self._fragments, []
        self._ready.extend(event for event in events if event.kv.mod_revision >= self._next_revision)
        self._next_revision = max(self._next_revision, events[-1].kv.mod_revision + 1)

    def _judge(self, error: CallFailed) -> None:
        if fate(error.code, error.text) is Fate.REFUSED and error.code not in _BROKEN:
            self._drop()
            self._closed = True
            raise from_rpc(error, writes=False) from error
        self._lost(trouble.of(error))

    def _lost(self, why: str) -> None:
        """Go on elsewhere."""
        self._drop()
        if self._endpoint is not None:
            self._endpoints.failed(self._endpoint, asyncio.get_running_loop().time(), why)

    def _drop(self) -> None:
        self._fragments.clear()
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None


_BROKEN = frozenset({UNKNOWN, DATA_LOSS, RESOURCE_EXHAUSTED})
"""Ends of a stream that say nothing against the watch itself."""
