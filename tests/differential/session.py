"""One seed: the same requests to two servers, answer by answer, and watches on both sides."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import Message

from connect_kv.rpc import election_pb2 as election
from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import watch_pb2 as watch
from tests.differential import intended
from tests.differential.compare import difference
from tests.differential.generator import BRIEF_LEASE, LEASES, Generator
from tests.differential.target import Failed, Stream, Target
from tests.differential.watching import (
    cancelled,
    check_responses,
    created,
    has_progress,
    has_told,
    last_matching,
    last_revision,
    summary,
)

PAUSE = 5.0
"""Seconds after which a watch response that did not come is missing."""
EVERYTHING = watch.WatchCreateRequest(key=b"\x00", range_end=b"\x00")


class Difference(AssertionError):
    """The two servers answered differently."""


class Pair:
    """Two servers with the same history."""

    def __init__(self, theirs: Target, ours: Target, seed: int) -> None:
        self.theirs, self.ours = theirs, ours
        self.both = (theirs, ours)
        self.generator = Generator(seed)
        self.seed = seed
        self.requests = 0
        self._compactions: set[int] = set()
        self._watching: tuple[Stream, Stream] | None = None
        self._renewing: tuple[Stream, Stream] | None = None
        self._renewed = 0
        self._watches_asked: list[watch.WatchRequest] = []
        self._active: dict[int, watch.WatchCreateRequest] = {}
        """By id, with the revision each starts from."""
        self._reads_history = False
        """Some watch may not have reached the end of the history yet."""
        self._history: Stream
        """A watch of everything on their side, from the beginning."""

    def clean(self) -> None:
        """Bring both to the same state, from whatever an earlier seed left, and learn the revision."""
        everything = kv.DeleteRangeRequest(key=b"\x00", range_end=b"\x00")
        for target in self.both:
            assert not isinstance(target.call(everything), Failed)
            for number in (*LEASES, BRIEF_LEASE, -BRIEF_LEASE):
                target.call(lease.LeaseRevokeRequest(ID=number))
        self.generator.revision = self._level()
        self.generator.compacted = self.generator.revision
        self._compactions = {self.generator.revision}
        for target in self.both:
            target.call(kv.CompactionRequest(revision=self.generator.revision, physical=True))

    def _level(self) -> int:
        """Put on the one that is behind until both are at the same revision."""
        revisions = [self._revision(target) for target in self.both]
        for target, revision in zip(self.both, revisions, strict=True):
            for _ in range(max(revisions) - revision):
                target.call(kv.PutRequest(key=b"level"))
        for target in self.both:
            target.call(kv.PutRequest(key=b"level"))
            target.call(kv.DeleteRangeRequest(key=b"level"))
        return self._revision(self.ours)

    @staticmethod
    def _revision(target: Target) -> int:
        answer = target.call(kv.RangeRequest(key=b"level"))
        assert isinstance(answer, kv.RangeResponse), answer
        return answer.header.revision

    def run(self, requests: int) -> None:
        """Send that many requests; raise Difference at the first answer that differs and is not explained."""
        self.clean()
        self._history = self.theirs.watch()
        self._created(self._history, watch.WatchRequest(create_request=EVERYTHING))
        rng = self.generator.rng
        steps: list[tuple[Callable[[], None], float]] = [
            (self._call, 93), (self._watch, 3), (self._keep_alive, 3), (self._brief_lease, 0.5),
            (self._progress, 0.3), (self._large, 0.1), (self._fragments, 0.05), (self._resume, 0.05),
        ]  # fmt: skip
        chosen = rng.choices([step for step, _ in steps], [weight for _, weight in steps], k=requests)
        for step in chosen:
            step()
            self.requests += 1
        self._settle()
        for pair in (self._watching, self._renewing, (self._history,)):
            for stream in pair or ():
                stream.close()

    def _ask(self, request: Message) -> tuple[Message | Failed, Message | Failed]:
        """Both at the same time; compared."""
        needs_leader = self.generator.maybe(0.1)
        first, second = (target.begin(request, needs_leader=needs_leader) for target in self.both)
        theirs, ours = first(), second()
        found = difference(request, theirs, ours)
        if found:
            raise self._difference(request, found)
        return theirs, ours

    def _call(self) -> None:
        request = self.generator.request()
        if isinstance(request, kv.CompactionRequest):
            self._leave_the_past()
            self._settle()
        theirs, ours = self._ask(request)
        if isinstance(request, kv.RangeRequest) and self.generator.maybe(0.1):
            self._stream_too(request, ours)
        if not isinstance(theirs, Failed):
            self._learn(theirs)
            if isinstance(request, kv.CompactionRequest):
                self.generator.compacted = request.revision
                self._compactions.add(request.revision)

    def _learn(self, answer: Any) -> None:
        self.generator.revision = max(self.generator.revision, answer.header.revision)
        if isinstance(answer, election.CampaignResponse):
            self.generator.leading[answer.leader.lease] = answer.leader
            # Its header may be older than the value that it put.
            self.generator.revision = max(self.generator.revision, self._revision(self.theirs))

    def _stream_too(self, request: kv.RangeRequest, ranged: Message | Failed) -> None:
        """Our RangeStream, which this etcd does not have, says what our Range said."""
        streamed = self.ours.range_stream(request)
        if streamed == Failed("UNIMPLEMENTED", intended.STREAM_SORT):
            assert request.sort_order or request.sort_target, request
        elif streamed == Failed("UNIMPLEMENTED", intended.STREAM_FILTERS):
            assert "_revision" in str(request), request
        elif found := difference(request, ranged, streamed):
            raise self._difference(request, f"Range != RangeStream: {found}")

    def _difference(self, request: Any, found: str) -> Difference:
        name, text = type(request).__name__, str(request).strip()
        return Difference(f"seed {self.seed}, request {self.requests}: {name} {text[:2000]}\n{found[:4000]}")

    def _large(self) -> None:
        """Requests at the limit of size; what one put is taken away again."""
        self._ask(self.generator.large())
        theirs, _ = self._ask(kv.DeleteRangeRequest(key=b"large", range_end=b"largf"))
        self._learn(theirs)

    def _brief_lease(self) -> None:
        request = self.generator.brief_grant()
        theirs, ours = (target.call(request) for target in self.both)
        if isinstance(theirs, Failed) or isinstance(ours, Failed):
            raise self._difference(request, f"{theirs} != {ours}")
        assert isinstance(theirs, lease.LeaseGrantResponse)
        assert isinstance(ours, lease.LeaseGrantResponse)
        for target, granted in ((self.theirs, theirs), (self.ours, ours)):
            target.call(lease.LeaseRevokeRequest(ID=granted.ID))
        if not request.ID and theirs.ID > 0 and ours.ID > 0:
            theirs.ID = ours.ID = 0  # each chooses for itself
        if found := difference(request, theirs, ours):
            raise self._difference(request, found)

    def _keep_alive(self) -> None:
        if self._renewing is None:
            self._renewing = (self.theirs.keep_alive(), self.ours.keep_alive())
        request = self.generator.keep_alive()
        for stream in self._renewing:
            stream.catch_up()  # the revision in the answer is that of the node before the renewal
            stream.send(request)
        theirs, ours = (stream.next(self._renewed) for stream in self._renewing)
        self._renewed += 1
        if found := difference(request, theirs, ours):
            raise self._difference(request, found)

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = (self.theirs.watch(), self.ours.watch())
        request = self.generator.watch()
        self._watches_asked.append(request)
        if request.HasField("cancel_request"):
            self._settle()
        for stream in self._watching:
            if request.HasField("create_request"):
                answer = self._created(stream, request)
                if answer is not None and not answer.canceled:
                    self._begin(answer, request.create_request)
            else:
                self._cancelled(stream, request)
        self._active.pop(request.cancel_request.watch_id if request.HasField("cancel_request") else -1, None)

    def _cancelled(self, stream: Stream, request: watch.WatchRequest) -> None:
        """Cancel a watch and wait for the answer; there is none if there is no such watch."""
        so_far = cancelled(stream)
        stream.send(request)
        if request.cancel_request.watch_id in self._active:
            stream.until(lambda: cancelled(stream) > so_far, PAUSE)

    def _begin(self, answer: watch.WatchResponse, create: watch.WatchCreateRequest) -> None:
        active = self._active[answer.watch_id] = watch.WatchCreateRequest()
        active.CopyFrom(create)
        if create.start_revision:
            self._reads_history = True
        else:
            active.start_revision = answer.header.revision + 1

    @staticmethod
    def _created(stream: Stream, request: watch.WatchRequest) -> watch.WatchResponse | None:
        """Create a watch and wait for the answer: "from now on" is a moment both must share."""
        stream.catch_up()
        so_far = len(created(stream))
        stream.send(request)
        stream.until(lambda: len(created(stream)) > so_far, PAUSE)
        return created(stream)[-1] if len(created(stream)) > so_far else None

    def _progress(self) -> None:
        """A watch that has seen everything is told so, with the current revision."""
        create = watch.WatchRequest(create_request=watch.WatchCreateRequest(key=b"a", range_end=b"\x00"))
        ask = watch.WatchRequest(progress_request=watch.WatchProgressRequest())
        told = []
        for target in self.both:
            stream = target.watch()
            self._created(stream, create)
            stream.send(ask)
            stream.until(partial(has_progress, stream), PAUSE)
            told.append([(one.watch_id, one.header.revision) for one in stream.received])
            stream.close()
        if told[0] != told[1] or told[0][-1][1] != self.generator.revision:
            raise self._difference(ask, f"{told} at revision {self.generator.revision}")

    def _fragments(self) -> None:
        """Events of one revision, with what was before, that exceed the size of one response."""
        values = [bytes([self.generator.rng.randrange(256)]) * 500_000 for _ in range(3)]
        streams = [target.watch() for target in self.both]
        everything = watch.WatchCreateRequest(key=b"large", range_end=b"largf", prev_kv=True, fragment=True)
        past = watch.WatchCreateRequest(start_revision=self.generator.revision + 1)
        past.MergeFrom(everything)
        for stream in streams:
            self._created(stream, watch.WatchRequest(create_request=everything))
        for _ in range(2):
            puts = [kv.PutRequest(key=b"large/%d" % at, value=value) for at, value in enumerate(values)]
            theirs, _ = self._ask(kv.TxnRequest(success=[kv.RequestOp(request_put=one) for one in puts]))
            self._learn(theirs)
        for stream in streams:
            self._created(stream, watch.WatchRequest(create_request=past))
            for watch_id in (0, 1):
                stream.until(partial(has_told, stream, watch_id, self.generator.revision), PAUSE)
        self._agree(streams[0], streams[1], [everything, past])
        for stream in streams:
            if not any(one.fragment for one in stream.received):
                raise self._difference(past, "a large response was not fragmented")
            stream.close()
        theirs, _ = self._ask(kv.DeleteRangeRequest(key=b"large", range_end=b"largf"))
        self._learn(theirs)

    def _resume(self) -> None:
        """A watch that missed more than 4 MiB: ours tells it to a client that takes no larger message."""
        begin = self.generator.revision + 1
        for number in range(4):
            value = bytes([self.generator.rng.randrange(256)]) * 1_200_000
            theirs, _ = self._ask(kv.PutRequest(key=b"large/%d" % (number % 2), value=value))
            self._learn(theirs)
        missed = watch.WatchCreateRequest(
            key=b"large", range_end=b"largf", start_revision=begin, prev_kv=self.generator.maybe(0.5)
        )
        streams = self.theirs.watch(), self.ours.watch(limited=True)
        for stream in streams:
            self._created(stream, watch.WatchRequest(create_request=missed))
            stream.until(partial(has_told, stream, 0, self.generator.revision), PAUSE)
        self._agree(*streams, [missed])
        for stream in streams:
            stream.close()
        theirs, _ = self._ask(kv.DeleteRangeRequest(key=b"large", range_end=b"largf"))
        self._learn(theirs)

    def _settle(self) -> None:
        """Wait until both sides' watches have said the same; raise Difference if they do not get there.

        Also before anything that races with events on their way: a cancel, a compaction.
        """
        if self._watching is None:
            return
        self._history.until(lambda: last_revision(self._history) >= self.generator.revision, PAUSE)
        for watch_id, create in self._active.items():
            wanted = last_matching(self._history, create, self._compactions)
            for stream in self._watching:
                stream.until(partial(has_told, stream, watch_id, wanted), PAUSE)
        self._agree(*self._watching, self._watches_asked)

    def _leave_the_past(self) -> None:
        """Wait until both have looked at the history for every watch that reads it.

        A watch that finds nothing there says nothing, and is cancelled if a compaction comes before it
        has looked. An etcd looks for all such watches at once: one that finds something tells.
        """
        if not self._reads_history:
            return
        self._reads_history = False
        theirs, _ = self._ask(kv.PutRequest(key=b"sentinel"))
        self._learn(theirs)
        create = watch.WatchCreateRequest(key=b"sentinel", start_revision=self.generator.revision)
        for target in self.both:
            stream = target.watch()
            self._created(stream, watch.WatchRequest(create_request=create))
            stream.until(partial(has_told, stream, 0, self.generator.revision), PAUSE)
            stream.close()

    def _agree(self, theirs: Stream, ours: Stream, asked: list[Any]) -> None:
        same = partial(self._same, theirs, ours)
        end = time.monotonic() + PAUSE
        while not (agreed := ours.until(same, 0.02)) and time.monotonic() < end:
            pass
        if not agreed:
            self._complain(theirs, ours, asked)
        for stream in (theirs, ours):
            if wrong := check_responses(stream):
                raise Difference(f"seed {self.seed}, request {self.requests}: {wrong}")

    def _complain(self, theirs: Stream, ours: Stream, asked: list[Any]) -> None:
        wanted, found = summary(theirs), summary(ours)
        for watch_id in sorted(wanted.keys() | found.keys()):
            left, right = wanted.get(watch_id, []), found.get(watch_id, [])
            if not intended.same_watch(left, right, self._compactions):
                lines = "\n".join(str(one).replace("\n", " ") for one in asked)
                raise Difference(
                    f"seed {self.seed}, request {self.requests}: watch {watch_id}, asked on this stream:\n"
                    f"{lines}\n{first_difference(left, right)}"
                )

    def _same(self, theirs: Stream, ours: Stream) -> bool:
        wanted, found = summary(theirs), summary(ours)
        return wanted.keys() == found.keys() and all(
            intended.same_watch(wanted[watch_id], found[watch_id], self._compactions) for watch_id in wanted
        )


def first_difference(left: list[Any], right: list[Any]) -> str:
    """What two watches were told from where on they were told another thing, and a little before."""
    same = next((at for at, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), None)
    at = min(len(left), len(right)) if same is None else same
    near = slice(max(0, at - 2), at + 3)
    return f"at {at} of {len(left)} and {len(right)}:\n{_readable(left[near])}\n!=\n{_readable(right[near])}"


def _readable(said: list[Any]) -> str:
    events = [
        str(kv.Event.FromString(one)).replace("\n", " ") if isinstance(one, bytes) else one for one in said
    ]
    return "\n".join(str(one)[:300] for one in events)
