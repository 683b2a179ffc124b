"""WatchStream: the watches of one client stream, and its responses in the order they must leave.

The queue holds answers to requests, progress, and watches that have something to send. A watch
stands in it at most once; what it sends is collected when its turn comes, so revisions that arrive
meanwhile travel in one response. The changes of one revision always travel together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from connect_kv.errors import NodeStopped
from connect_kv.kv import refusals
from connect_kv.kv.catch_up import read_piece
from connect_kv.kv.layout import FIRST_KEY, FROM_KEY
from connect_kv.kv.revision import Revision
from connect_kv.kv.store import Change
from connect_kv.kv.watch import Watch, WatchHub
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse

CATCH_UP_BYTES = 1 << 20
"""A response from the history is sent once it has so much,"""
CATCH_UP_REVISIONS = 1000
"""or so many revisions, but always whole revisions."""

NO_WATCH = -1
"""The id in refusals and in progress that is about the whole stream."""

EMPTY_RANGE = "mvcc: watcher range is empty"
DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"


class _Progress(NamedTuple):
    """A promise that nothing up to `revision` is outstanding: for one watch, or for all of the stream."""

    watch: Watch | None
    revision: int


class WatchStream:
    """Requests go in through `handle`, responses come out of ``async for``. One consumer.

    Iterating raises NodeStopped once the hub is closed, and ends after `close`.
    """

    def __init__(self, hub: WatchHub) -> None:
        self.pending_bytes = 0
        self._hub = hub
        self._watches: dict[int, Watch] = {}
        self._ended: set[int] = set()
        """Ids of watches ended by a compaction: taken, as in etcd, until the client cancels them too."""
        self._next_id = 0
        self._queue: deque[WatchResponse | _Progress | Watch] = deque()
        self._fragments: deque[WatchResponse] = deque()
        self._wakeup = asyncio.Event()
        self._closed = False
        hub.add(self)

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def backlog(self) -> int:
        """Items that wait for the consumer: while they are many, stop taking in requests."""
        return len(self._queue) + len(self._fragments)

    def handle(self, request: WatchRequest) -> None:
        """Do what the client asks; an unknown request is ignored."""
        match request.WhichOneof("request_union"):
            case "create_request":
                self.create(request.create_request)
            case "cancel_request":
                self.cancel(request.cancel_request)
            case "progress_request":
                self.request_progress()

    def create(self, request: WatchCreateRequest) -> None:
        """Start a watch. The answer comes before any of its events."""
        key = request.key or FIRST_KEY
        reason = self._refusal(key, request)
        revision = self._hub.revision
        if reason is not None:
            refusal = WatchResponse(watch_id=NO_WATCH, created=True, canceled=True, cancel_reason=reason)
            self._answer(refusal, revision)
            return
        watch = Watch(self, request.watch_id or self._unused_id(), key, request)
        self._watches[watch.id] = watch
        self._answer(WatchResponse(watch_id=watch.id, created=True), revision)
        if 0 < watch.start <= revision:
            watch.behind = True
            watch.position = Revision(watch.start)
            self.enqueue(watch)
        else:
            self._hub.join(watch)

    def cancel(self, request: WatchCancelRequest) -> None:
        """End a watch: one response, and nothing of it after that. An unknown id gets no answer."""
        id = request.watch_id
        watch = self._watches.get(id)
        if watch is not None:
            self._drop(watch)
        elif id in self._ended:
            self._ended.discard(id)
        else:
            return
        self._answer(WatchResponse(watch_id=id, canceled=True), self._hub.revision)

    def request_progress(self) -> None:
        """Promise the client where all watches stand, if all have caught up; otherwise say nothing."""
        revision = self._hub.revision
        if self._watches and all(watch.caught_up(revision) for watch in self._watches.values()):
            self._enqueue(_Progress(None, revision))

    def notify_progress(self, watch: Watch) -> None:
        """The same for one watch, by the timer."""
        if not watch.queued:
            self._enqueue(_Progress(watch, self._hub.revision))

    def enqueue(self, watch: Watch) -> None:
        """It has something to send."""
        watch.queued = True
        self._enqueue(watch)

    def drop_pending(self, watch: Watch) -> None:
        """Forget the changes that wait for its turn."""
        self.pending_bytes -= watch.pending_bytes
        watch.pending = []
        watch.pending_bytes = 0

    def wake(self) -> None:
        """Let the consumer look again."""
        self._wakeup.set()

    def close(self) -> None:
        """End all its watches. Safe to repeat."""
        self._closed = True
        for watch in list(self._watches.values()):
            self._drop(watch)
        self._queue.clear()
        self._fragments.clear()
        self._hub.forget(self)
        self.wake()

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> WatchResponse:
        """The next response; waits for one."""
        while True:
            if self._fragments:
                return self._fragments.popleft()
            if self._closed:
                raise StopAsyncIteration
            if self._hub.closed:
                raise NodeStopped("this member is shutting down")
            if not self._queue:
                self._wakeup.clear()
                await self._wakeup.wait()
                continue
            response = await self._turn()
            if response is not None:
                return response

    async def _turn(self) -> WatchResponse | None:
        """What the head of the queue has to say. It stays there while we wait, so nothing is lost."""
        head = self._queue[0]
        if isinstance(head, Watch):
            if head.behind and not head.closed:
                return await self._catch_up(head)
            self._queue.popleft()
            head.queued = False
            return None if head.closed else self._take_pending(head)
        self._queue.popleft()
        return self._promise(head) if isinstance(head, _Progress) else head

    def _promise(self, progress: _Progress) -> WatchResponse | None:
        """Progress, unless a watch has fallen behind since it was queued."""
        watch, revision = progress
        concerned = self._watches.values() if watch is None else (watch,)
        if not concerned or not all(one.caught_up(revision) and not one.closed for one in concerned):
            return None
        response = WatchResponse(watch_id=NO_WATCH if watch is None else watch.id)
        response.header.revision = revision
        return response

    def _take_pending(self, watch: Watch) -> WatchResponse | None:
        changes = watch.pending
        if not changes:
            return None
        self.drop_pending(watch)
        return self._events(watch, changes, changes[-1].revision)

    async def _catch_up(self, watch: Watch) -> WatchResponse | None:
        """Read on in the history until there is a response; at its end the watch is live."""
        while not watch.closed and watch.behind:
            last = self._hub.revision
            with self._hub.readings.open() as reading:
                compacted = reading.state.compacted
                if watch.position.main < compacted:
                    return self._overtaken(watch, compacted)
                piece = read_piece(
                    reading, watch.key, watch.range_end, watch.position, last, prev_kv=watch.prev_kv
                )
            watch.unsent += filter(watch.wants, piece.changes)
            watch.position = piece.position
            if watch.position.main > last:
                self._hub.join(watch)
            else:
                response = self._full_response(watch)
                if response is not None:
                    self._queue.rotate(-1)
                    return response
                await asyncio.sleep(0)
        if self._queue and self._queue[0] is watch:
            self._queue.popleft()
            watch.queued = False
        unsent, watch.unsent = watch.unsent, []
        if watch.closed or not unsent:
            return None
        return self._events(watch, unsent, self._hub.revision)

    def _full_response(self, watch: Watch) -> WatchResponse | None:
        """A response of the whole revisions read so far, if they are enough for one."""
        unsent = watch.unsent
        whole = len(unsent)
        while whole and unsent[whole - 1].revision == watch.position.main:
            whole -= 1  # of this one there may be more to read
        if not whole:
            return None
        revisions = 1 + sum(unsent[at].revision != unsent[at - 1].revision for at in range(1, whole))
        if revisions < CATCH_UP_REVISIONS and sum(change.size for change in unsent) < CATCH_UP_BYTES:
            return None
        watch.unsent = unsent[whole:]
        return self._events(watch, unsent[:whole], self._hub.revision)

    def _overtaken(self, watch: Watch, compacted: int) -> WatchResponse:
        """The history it needs was compacted: say from where on it could start again."""
        self._queue.popleft()
        self._drop(watch)
        self._ended.add(watch.id)
        return WatchResponse(
            watch_id=watch.id, canceled=True, compact_revision=compacted, header=ResponseHeader()
        )

    def _events(self, watch: Watch, changes: list[Change], revision: int) -> WatchResponse:
        """One response, or its first fragment; the others come next."""
        watch.quiet = False
        encoded = [change.encoded(prev_kv=watch.prev_kv) for change in changes]
        if watch.fragment and len(encoded) > 1:
            parts = list(_split(encoded, self._hub.fragment_bytes))
        else:
            parts = [encoded]
        for number, part in enumerate(parts, 1):
            response = WatchResponse(watch_id=watch.id, fragment=number < len(parts))
            response.header.revision = revision
            response.MergeFromString(b"".join(part))
            self._fragments.append(response)
        return self._fragments.popleft()

    def _refusal(self, key: bytes, request: WatchCreateRequest) -> str | None:
        if request.start_revision < 0:
            return refusals.COMPACTED.message
        if request.range_end and request.range_end != FROM_KEY and request.range_end <= key:
            return EMPTY_RANGE
        if request.watch_id and self._taken(request.watch_id):
            return DUPLICATE_ID
        return None

    def _taken(self, id: int) -> bool:
        return id in self._watches or id in self._ended

    def _unused_id(self) -> int:
        while self._taken(self._next_id):
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _answer(self, response: WatchResponse, revision: int) -> None:
        response.header.revision = revision
        self._enqueue(response)

    def _enqueue(self, item: WatchResponse | _Progress | Watch) -> None:
        self._queue.append(item)
        self._wakeup.set()

    def _drop(self, watch: Watch) -> None:
        watch.closed = True
        self._hub.leave(watch)
        self.drop_pending(watch)
        watch.unsent = []
        del self._watches[watch.id]


def _split(encoded: Iterable[bytes], most: int) -> Iterable[list[bytes]]:
    """Groups of events below that size, at least one in each."""
    group: list[bytes] = []
    size = 0
    for event in encoded:
        if group and size + len(event) >= most:
            yield group
            group, size = [], 0
        group.append(event)
        size += len(event)
    yield group
