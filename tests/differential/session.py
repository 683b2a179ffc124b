"""One seed: the same requests to two servers, answer by answer, and watches on both sides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import watch_pb2 as watch
from tests.differential.compare import difference
from tests.differential.generator import Generator
from tests.differential.target import Failed, Stream, Target

PAUSE = 5.0
"""Seconds after which a watch response that did not come is missing."""


class Difference(AssertionError):
    """The two servers answered differently."""


def _created(stream: Stream) -> int:
    return sum(one.created for one in stream.received)


def _more_created(stream: Stream, count: int) -> bool:
    return _created(stream) > count


class Pair:
    """Two servers with the same history."""

    def __init__(self, theirs: Target, ours: Target, seed: int) -> None:
        self.theirs, self.ours = theirs, ours
        self.generator = Generator(seed)
        self.seed = seed
        self.requests = 0
        self._watching: tuple[Stream, Stream] | None = None
        self._renewing: tuple[Stream, Stream] | None = None
        self._renewed = 0
        self._watches_asked: list[watch.WatchRequest] = []

    def clean(self) -> None:
        """Bring both to the same state, from whatever an earlier seed left, and learn the revision."""
        everything = kv.DeleteRangeRequest(key=b"\x00", range_end=b"\x00")
        for target in (self.theirs, self.ours):
            assert not isinstance(target.call(everything), Failed)
            for number in (1, 2, 3, 7, 999):
                target.call(lease.LeaseRevokeRequest(ID=number))
        self.generator.revision = self._level()
        self.generator.compacted = self.generator.revision
        for target in (self.theirs, self.ours):
            target.call(kv.CompactionRequest(revision=self.generator.revision, physical=True))

    def _level(self) -> int:
        """Put on the one that is behind until both are at the same revision."""
        revisions = [self._revision(target) for target in (self.theirs, self.ours)]
        for target, revision in zip((self.theirs, self.ours), revisions, strict=True):
            for _ in range(max(revisions) - revision):
                target.call(kv.PutRequest(key=b"level"))
        for target in (self.theirs, self.ours):
            target.call(kv.PutRequest(key=b"level"))
            target.call(kv.DeleteRangeRequest(key=b"level"))
        return self._revision(self.ours)

    @staticmethod
    def _revision(target: Target) -> int:
        answer = target.call(kv.RangeRequest(key=b"level"))
        assert isinstance(answer, kv.RangeResponse), answer
        return answer.header.revision

    def run(self, requests: int, explained: Callable[[Any, Any, Any], bool]) -> None:
        """Send that many requests; raise Difference at the first answer that differs and is not explained."""
        self.clean()
        for _ in range(requests):
            choice = self.generator.rng.random()
            if choice < 0.03:
                self._watch()
            elif choice < 0.06:
                self._keep_alive()
            else:
                self._call(explained)
            self.requests += 1
        self._settle()
        for pair in (self._watching, self._renewing):
            for stream in pair or ():
                stream.close()

    def _call(self, explained: Callable[[Any, Any, Any], bool]) -> None:
        request = self.generator.request()
        if isinstance(request, kv.CompactionRequest):
            self._settle()
        theirs, ours = self.theirs.call(request), self.ours.call(request)
        found = difference(request, theirs, ours)
        if found and not explained(request, theirs, ours):
            raise self._difference(type(request).__name__, request, found)
        if not isinstance(theirs, Failed):
            header = theirs.header  # type: ignore[attr-defined]  # every one of these answers has one
            self.generator.revision = max(self.generator.revision, header.revision)
            if isinstance(request, kv.CompactionRequest):
                self.generator.compacted = request.revision

    def _difference(self, name: str, request: Any, found: str) -> Difference:
        return Difference(
            f"seed {self.seed}, request {self.requests}: {name} {str(request).strip()}\n{found}"
        )

    def _keep_alive(self) -> None:
        if self._renewing is None:
            self._renewing = (self.theirs.keep_alive(), self.ours.keep_alive())
        request = self.generator.keep_alive()
        for stream in self._renewing:
            stream.send(request)
        theirs, ours = (stream.next(self._renewed) for stream in self._renewing)
        self._renewed += 1
        if found := difference(request, theirs, ours):
            raise self._difference("LeaseKeepAliveRequest", request, found)

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = (self.theirs.watch(), self.ours.watch())
        request = self.generator.watch()
        self._watches_asked.append(request)
        if request.HasField("cancel_request"):
            self._settle()
        if request.HasField("create_request") and request.create_request.start_revision == 0:
            # "From now on" is a moment both must share: wait until each has answered.
            for stream in self._watching:
                created = _created(stream)
                stream.send(request)
                with stream.arrived:
                    stream.arrived.wait_for(partial(_more_created, stream, created), PAUSE)
        else:
            for stream in self._watching:
                stream.send(request)

    def _settle(self) -> None:
        """Wait until both sides' watches have said the same; raise Difference if they do not get there.

        Also before anything that races with events on their way: a cancel, a compaction.
        """
        if self._watching is None:
            return
        theirs, ours = self._watching
        wanted, found = self._summary(theirs), self._summary(ours)
        for _ in range(int(PAUSE / 0.02)):
            if wanted == found:
                return
            with ours.arrived:
                ours.arrived.wait(0.02)
            wanted, found = self._summary(theirs), self._summary(ours)
        for watch_id in sorted(wanted.keys() | found.keys()):
            if wanted.get(watch_id) != found.get(watch_id):
                raise Difference(
                    f"seed {self.seed}, request {self.requests}: watch {watch_id}, asked on this stream:\n"
                    f"{[str(one).replace(chr(10), ' ') for one in self._watches_asked]}\n"
                    f"{wanted.get(watch_id)}\n!=\n{found.get(watch_id)}"
                )

    @staticmethod
    def _summary(stream: Stream) -> dict[int, list[Any]]:
        """By watch: what was said about it and its events, whatever the responses they came in."""
        summary: dict[int, list[Any]] = {}
        with stream.arrived:
            for response in list(stream.received):
                said = summary.setdefault(response.watch_id, [])
                if response.created or response.canceled:
                    kind = "created" * response.created + "canceled" * response.canceled
                    said.append((kind, response.compact_revision, response.cancel_reason))
                said.extend(event.SerializeToString(deterministic=True) for event in response.events)
        return summary
