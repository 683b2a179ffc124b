"""WatchStream: the watches of one client stream, and its responses in the order they must leave.

The queue holds answers to requests, progress, and watches that have something to send. A watch
stands in it at most once; what it sends is collected when its turn comes, so revisions that arrive
meanwhile travel in one response. The changes of one revision always travel together.

Under load a stream rests between two rounds through its queue as long as the last one took. A message
costs a process far more than the changes in it, so a thousand watches of a busy key would leave no
time for the writes they wait for; so they hear of more changes at once, a little later. After a
quiet moment there is nothing to rest from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from connect_kv import etcd_errors, protowire
from connect_kv.errors import NodeStopped
from connect_kv.kv.catch_up import read_piece
from connect_kv.kv.layout import FIRST_KEY, FROM_KEY
from connect_kv.kv.revision import Revision
from connect_kv.kv.watch import SLICE_WATCHES, Watcher, WatchHub
from connect_kv.kv.watcher_group import EventBatch, passes
from connect_kv.rpc.watch_pb2 import WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse

CATCH_UP_BYTES = 1 << 20
"""A response from the history is sent once it has so much,"""
CATCH_UP_REVISIONS = 1000
"""or so many revisions, but always whole revisions."""

RESPONSE_BYTES = (2 << 20) - 256
"""Events of one response take less, unless one revision has more: a client takes 4 MiB by default, and one
that refuses a response gets the same again each time it resumes. What else is in it fits into the rest."""

LONGEST_REST = 0.05
"""Seconds between two rounds at most: a slow consumer is held up no longer."""
_SHORTEST_REST = 0.001
"""Less is not worth a timer."""

NO_WATCH = -1
"""The id in refusals and in progress that is about the whole stream."""

_HEADER = b"\x0a"
"""WatchResponse.header = 1."""
_FRAGMENT = WatchResponse(fragment=True).SerializeToString()

EMPTY_RANGE = "mvcc: watcher range is empty"
DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"


class WatchAnswer(NamedTuple):
    """A response, as far as it is the machine's to say."""

    revision: int
    """The revision in the header of the response."""
    fields: bytes
    """All but header and events, encoded."""
    events: bytes = b""
    """The events, encoded as a WatchResponse holds them; shared by all watches that see the same."""

    @classmethod
    def of(cls, response: WatchResponse, revision: int) -> WatchAnswer:
        """An answer made of a response without events."""
        return cls(revision, response.SerializeToString())

    def message(self) -> WatchResponse:
        """This answer as a message; its header has the revision only."""
        response = WatchResponse.FromString(self.fields + self.events)
        response.header.revision = self.revision
        return response


class _Progress(NamedTuple):
    """A promise that nothing up to `revision` is outstanding: for one watch, or for all of the stream."""

    watch: Watcher | None
    revision: int


class WatchStream:
    """Requests go in through `handle`, responses come out of ``async for``. One consumer.

    Iterating raises NodeStopped once the hub is closed, and ends after `close`.
    """

    def __init__(self, hub: WatchHub) -> None:
        self._hub = hub
        self._watches: dict[int, Watcher] = {}
        self._ended: set[int] = set()
        """Ids of watches ended by a compaction: taken, as in etcd, until the client cancels them too."""
        self._next_id = 0
        self._queue: deque[WatchAnswer | _Progress | Watcher] = deque()
        self._parts: list[WatchAnswer] = []
        self._sleeper: asyncio.Future[None] | None = None
        """The consumer's, while it waits. There are ten thousands of streams that do nothing else."""
        self._closed = False
        self._round_began = 0.0
        self._round_left = 0
        """Items of the queue that belong to this round yet."""
        self._rests_until = 0.0
        hub.add(self)

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def backlog(self) -> int:
        """Items that wait for the consumer: while they are many, stop taking in requests."""
        return len(self._queue) + len(self._parts)

    def handle(self, request: WatchRequest, owner: str = "") -> None:
        """Do what the client, which is `owner`, asks; an unknown request is ignored."""
        match request.WhichOneof("request_union"):
            case "create_request":
                self.create(request.create_request, owner)
            case "cancel_request":
                self.cancel(request.cancel_request)
            case "progress_request":
                self.request_progress()

    def create(self, request: WatchCreateRequest, owner: str = "") -> None:
        """Start a watch. The answer comes before any of its events."""
        key = request.key or FIRST_KEY
        reason = self._refusal(key, request)
        revision = self._hub.revision
        if reason is not None:
            self.refuse(reason)
            return
        watch = Watcher(self, request.watch_id or self._unused_id(), key, request, owner)
        self._watches[watch.id] = watch
        self._hub.own(watch, 1)
        self._answer(WatchResponse(watch_id=watch.id, created=True), revision)
        if 0 < watch.start <= revision:
            watch.unsynced = True
            watch.position = Revision(watch.start)
            self.enqueue(watch)
        else:
            self._hub.join(watch)

    def refuse(self, reason: str) -> None:
        """Answer that a watch was not created."""
        refusal = WatchResponse(watch_id=NO_WATCH, created=True, canceled=True, cancel_reason=reason)
        self._answer(refusal, self._hub.revision)

    def end_where(self, reason: Callable[[str, bytes, bytes], str | None]) -> None:
        """End the watches for whose (owner, key, range_end) there is a reason, and tell it the client."""
        for watch in list(self._watches.values()):
            key, range_end, _ = watch.group_key
            if (why := reason(watch.owner, key, range_end)) is not None:
                self._drop(watch)
                response = WatchResponse(watch_id=watch.id, canceled=True, cancel_reason=why)
                self._answer(response, self._hub.revision)

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

    def notify_progress(self, watch: Watcher) -> None:
        """Tell one watch up to which revision it has seen everything; the timer asks for it."""
        if not watch.queued:
            self._enqueue(_Progress(watch, self._hub.revision))

    def enqueue(self, watch: Watcher) -> None:
        """It has something to send."""
        watch.queued = True
        self._enqueue(watch)

    def wake(self) -> None:
        """Let the consumer look again."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def close_slowly(self) -> None:
        """End all watches, with pauses: the client of ten thousands of watches is gone."""
        self._closed = True
        for number, watch in enumerate(list(self._watches.values()), 1):
            if not watch.closed:
                self._drop(watch)
            if not number % SLICE_WATCHES:
                await asyncio.sleep(0)
        self.close()

    def close(self) -> None:
        """End all its watches. Safe to repeat."""
        self._closed = True
        for watch in list(self._watches.values()):
            self._drop(watch)
        self._queue.clear()
        self._parts.clear()
        self._hub.forget(self)
        self.wake()

    def __aiter__(self) -> WatchStream:
        return self

    async def __anext__(self) -> WatchResponse:
        """The next response; waits for one."""
        return (await self._next()).message()

    async def next_encoded(self, header: Callable[[int], bytes]) -> bytes:
        """The next response, ready to be sent; `header` gives the encoded one for a revision."""
        revision, fields, events = await self._next()
        return b"".join((protowire.field(_HEADER, header(revision)), fields, events))

    async def _next(self) -> WatchAnswer:
        while True:
            if self._parts:
                return self._parts.pop(0)
            if self._closed:
                raise StopAsyncIteration
            if self._hub.closed:
                raise NodeStopped("this member is shutting down")
            if not self._queue:
                self._sleeper = asyncio.get_running_loop().create_future()
                await self._sleeper
                continue
            if not self._round_left:
                await self._begin_round()
                continue
            response = await self._turn()
            self._round_left -= 1
            if not self._round_left or not self._queue:
                self._end_round()
            if response is not None:
                return response

    async def _begin_round(self) -> None:
        """Rest first, if the last one took long just now."""
        now = asyncio.get_running_loop().time()
        if self._rests_until - now > _SHORTEST_REST:
            await asyncio.sleep(self._rests_until - now)
            now = asyncio.get_running_loop().time()
        self._round_began = now
        self._round_left = len(self._queue)

    def _end_round(self) -> None:
        now = asyncio.get_running_loop().time()
        self._round_left = 0
        self._rests_until = now + min(now - self._round_began, LONGEST_REST)

    async def _turn(self) -> WatchAnswer | None:
        """What the head of the queue has to say. It stays there while we wait, so nothing is lost."""
        head = self._queue[0]
        if isinstance(head, Watcher):
            if head.unsynced and not head.closed:
                return await self._catch_up(head)
            self._queue.popleft()
            head.queued = False
            return None if head.closed else self._take(head)
        self._queue.popleft()
        return self._promise(head) if isinstance(head, _Progress) else head

    def _promise(self, progress: _Progress) -> WatchAnswer | None:
        """Progress, unless a watch has fallen behind since it was queued."""
        watch, revision = progress
        concerned = self._watches.values() if watch is None else (watch,)
        if not concerned or not all(one.caught_up(revision) and not one.closed for one in concerned):
            return None
        return WatchAnswer.of(WatchResponse(watch_id=NO_WATCH if watch is None else watch.id), revision)

    def _take(self, watch: Watcher) -> WatchAnswer | None:
        """What its group has for it, or a first part."""
        if watch.group is None:
            return None
        batch, everything = watch.group.take(watch)
        if not everything:
            # Before all else: progress that stands behind it promises the rest too.
            watch.queued = True
            self._queue.appendleft(watch)
        if batch is not None and batch.changes[0].revision < watch.start:
            batch = EventBatch([change for change in batch.changes if change.revision >= watch.start])
        return self._events(watch, batch, batch.revision) if batch is not None and batch.changes else None

    async def _catch_up(self, watch: Watcher) -> WatchAnswer | None:
        """Read on in the history until there is a response; at its end the watch is live."""
        while not watch.closed and watch.unsynced:
            last = self._hub.revision
            with self._hub.transactions.open() as transaction:
                compacted = transaction.state.compacted
                if watch.position.main < compacted:
                    return self._overtaken(watch, compacted)
                key, range_end, filters = watch.group_key
                piece = read_piece(transaction, key, range_end, watch.position, last, prev_kv=watch.prev_kv)
            watch.unsent += [change for change in piece.changes if passes(filters, change)]
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
        return self._events(watch, EventBatch(unsent), self._hub.revision)

    def _full_response(self, watch: Watcher) -> WatchAnswer | None:
        """A response of the whole revisions read so far, if they are enough for one.

        Its header does not name the present, as etcd's does: a client that resumes by the header would
        miss what follows.
        """
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
        batch = EventBatch(unsent[:whole])
        return self._events(watch, batch, batch.revision)

    def _overtaken(self, watch: Watcher, compacted: int) -> WatchAnswer:
        """The history it needs was compacted: say from where on it could start again."""
        self._queue.popleft()
        self._drop(watch)
        self._ended.add(watch.id)
        return WatchAnswer.of(WatchResponse(watch_id=watch.id, canceled=True, compact_revision=compacted), 0)

    def _events(self, watch: Watcher, batch: EventBatch, revision: int) -> WatchAnswer:
        """One response, or the first of several; the others come next."""
        watch.quiet = False
        self._hub.sent += len(batch.changes)
        if not watch.fragment or len(batch.changes) == 1:
            return self._whole_revisions(watch, batch, revision)
        encoded = [change.encoded(prev_kv=watch.prev_kv) for change in batch.changes]
        parts = list(_split(encoded, self._hub.fragment_bytes))
        self._parts += [
            WatchAnswer(revision, watch.fields + _FRAGMENT, b"".join(part)) for part in parts[:-1]
        ]
        self._parts.append(WatchAnswer(revision, watch.fields, b"".join(parts[-1])))
        return self._parts.pop(0)

    def _whole_revisions(self, watch: Watcher, batch: EventBatch, revision: int) -> WatchAnswer:
        """For who asked for no fragments: no revision is cut, and no response larger than it must be."""
        events = batch.encoded(prev_kv=watch.prev_kv)
        if len(events) < RESPONSE_BYTES:
            return WatchAnswer(revision, watch.fields, events)
        *first, last = batch.pieces(RESPONSE_BYTES, prev_kv=watch.prev_kv)
        self._parts += [
            WatchAnswer(piece.revision, watch.fields, piece.encoded(prev_kv=watch.prev_kv)) for piece in first
        ]
        self._parts.append(WatchAnswer(revision, watch.fields, last.encoded(prev_kv=watch.prev_kv)))
        return self._parts.pop(0)

    def _refusal(self, key: bytes, request: WatchCreateRequest) -> str | None:
        if request.start_revision < 0:
            return etcd_errors.COMPACTED.message
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
        self._enqueue(WatchAnswer.of(response, revision))

    def _enqueue(self, item: WatchAnswer | _Progress | Watcher) -> None:
        self._queue.append(item)
        self.wake()

    def _drop(self, watch: Watcher) -> None:
        watch.closed = True
        self._hub.leave(watch)
        self._hub.own(watch, -1)
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
