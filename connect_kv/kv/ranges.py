"""RangeRead: one Range request against one frozen state, with every option of the API."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

from connect_kv import etcd_errors, protowire
from connect_kv.kv import scan, wire
from connect_kv.kv.layout import StoreState
from connect_kv.kv.page_counts import PageCounts
from connect_kv.kv.range_counts import RangeCounts
from connect_kv.kv.scan import Walk
from connect_kv.rpc.kv_pb2 import KeyValue, RangeRequest, RangeResponse, ResponseHeader
from connect_kv.storage.engine import Reader

_SORT_FIELDS = {
    RangeRequest.VERSION: "version",
    RangeRequest.CREATE: "create_revision",
    RangeRequest.MOD: "mod_revision",
    RangeRequest.VALUE: "value",
}
_Run: TypeAlias = list[tuple[Any, bytes]]
_FIRST = itemgetter(0)
_FEW_RECORDS = 4 * scan.SLICE_RECORDS


def check_revision(wanted: int, state: StoreState) -> None:
    """Refuse a revision that is not there any more, or not yet. Not positive means now."""
    if wanted > state.revision:
        raise etcd_errors.FUTURE_REVISION.error()
    if 0 < wanted < state.compacted:
        raise etcd_errors.COMPACTED.error()


class RangeRead:
    """Runs in steps: `run` pauses about every millisecond; what was found since is taken by `take`.

    Key-values come out in the order of the answer, already encoded as the answer holds them. After
    the end `more` and `count` are set. The order of work: choose keys at the revision, filter, sort,
    limit, strip values; `count` is of the keys chosen, before the filters.
    """

    __slots__ = (
        "_at",
        "_counts",
        "_last",
        "_parts",
        "_range_counts",
        "_reader",
        "_request",
        "_state",
        "count",
        "more",
    )

    def __init__(
        self,
        reader: Reader,
        state: StoreState,
        request: RangeRequest,
        range_counts: RangeCounts,
        counts: PageCounts | None = None,
    ) -> None:
        """`counts`, for the published state only: what is known from earlier reads."""
        self._range_counts = range_counts
        self._reader = reader
        self._state = state
        self._request = request
        self._counts = counts
        self._last: bytes | None = None
        """The last record that was within the limit, if there are more."""
        self._at = request.revision if 0 < request.revision != state.revision else 0
        self._parts: list[bytes] = []
        self.count = 0
        self.more = False

    def run(self) -> Walk[None]:
        """Do it, once; `check_revision` comes first."""
        with self._range_counts.reading(self._state.revision):
            yield from self._run()

    def _run(self) -> Walk[None]:
        request = self._request
        if request.count_only:
            self.count = yield from self._count_range()
        elif request.sort_target in _SORT_FIELDS:
            yield from self._emit(self._sorted(_SORT_FIELDS[request.sort_target]), to_end=False)
        elif _has_filters(request):
            yield from self._emit(self._counted(self._in_key_order()), to_end=True)
        else:
            self.count = yield from self._emit(self._in_key_order(), to_end=False)
            if self.more:
                self.count = yield from self._count_range()
                self._note_remainder()

    def take(self) -> bytes:
        """What was found since the last call, as encoded fields of a RangeResponse."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes]:
        """What was found since the last call, each key-value as an encoded field by itself."""
        parts = self._parts[:]
        self._parts.clear()
        return parts

    def tail(self) -> RangeResponse:
        """The rest of the answer, after the end: everything but the key-values."""
        header = ResponseHeader(revision=self._state.revision)
        return RangeResponse(header=header, more=self.more, count=self.count)

    def _count_range(self) -> Walk[int]:
        key, end = self._request.key, self._request.range_end
        revision = self._at or self._state.revision
        known = None if self._counts is None else self._counts.get(key, end, revision)
        if known is not None:
            return known
        if self._at:
            count = yield from scan.count_past(self._reader, key, end, self._at)
        else:
            count = yield from self._range_counts.count(self._reader, key, end, self._state)
        if self._counts is not None:
            self._counts.note(key, end, revision, count)
        return count

    def _note_remainder(self) -> None:
        """The next page starts just behind this one's last key: how many there are from there on is known."""
        request = self._request
        if self._counts is None or self._last is None or request.sort_order == RangeRequest.DESCEND:
            return
        behind = scan.parse(self._last).key + b"\x00"
        revision = self._at or self._state.revision
        self._counts.note(behind, request.range_end, revision, self.count - request.limit)

    def _in_key_order(self) -> Iterator[bytes | None]:
        request = self._request
        by_key = request.sort_target not in _SORT_FIELDS
        descending = by_key and request.sort_order == RangeRequest.DESCEND
        if not self._at:
            yield from scan.current(self._reader, request.key, request.range_end, reverse=descending)
        elif not descending:
            yield from scan.past(self._reader, request.key, request.range_end, self._at)
        else:
            yield from self._past_descending()

    def _past_descending(self) -> Iterator[bytes | None]:
        """The index only tells what lived at a revision when read forwards, so places are kept first."""
        request = self._request
        found: list[bytes] = []
        for revision_key in scan.revision_keys(self._reader, request.key, request.range_end, self._at):
            if revision_key is None:
                yield None
            else:
                found.append(revision_key)
        yield from scan.fetch(self._reader, reversed(found))

    def _counted(self, walk: Iterator[bytes | None]) -> Iterator[bytes | None]:
        """Count what comes, and let through what passes the revision filters."""
        passes = _filter_of(self._request)
        for record in walk:
            if record is not None:
                self.count += 1
                if passes is not None and not passes(scan.parse(record)):
                    continue
            yield record

    def _sorted(self, field: str) -> Iterator[bytes | None]:
        """Sort in runs of one slice each, then merge, so that no long sort holds the loop.

        Ties keep key order, as etcd's do while they are few. Under a limit no more than about twice
        that many records are kept.
        """
        request = self._request
        descending = request.sort_order == RangeRequest.DESCEND
        value = attrgetter(field)
        walk = self._counted(self._in_key_order())
        if request.sort_order == RangeRequest.NONE and request.limit > 0 and not _has_filters(request):
            walk = _first(walk, request.limit + 1)
        keep = request.limit + 1 if request.limit > 0 else sys.maxsize
        runs: list[_Run] = []
        run: _Run = []
        kept = 0
        for record in walk:
            if record is not None:
                run.append((value(scan.parse(record)), record))
                if len(run) < scan.SLICE_RECORDS:
                    continue
            run.sort(key=_FIRST, reverse=descending)
            runs.append(run)
            kept += len(run)
            run = []
            if kept > 2 * keep + _FEW_RECORDS:
                runs = [list(islice(heapq.merge(*runs, key=_FIRST, reverse=descending), keep))]
                kept = len(runs[0])
            yield None
        run.sort(key=_FIRST, reverse=descending)
        merged = heapq.merge(*runs, run, key=_FIRST, reverse=descending)
        yield from scan.paused(record for _, record in merged)

    def _emit(self, walk: Iterator[bytes | None], *, to_end: bool) -> Walk[int]:
        """Encode what comes, up to the limit, and read on after it only `to_end`.

        Returns how many came.
        """
        limit = self._request.limit
        keys_only = self._request.keys_only
        append = self._parts.append
        seen = 0
        last = None
        for record in walk:
            if record is None:
                yield
                continue
            seen += 1
            if 0 < limit < seen:
                if not self.more:
                    self.more = True
                    self._last = last
                if not to_end:
                    break
                continue
            last = record
            append(protowire.field(wire.RANGE_KVS, wire.without_value(record) if keys_only else record))
        return seen


def _first(walk: Iterator[bytes | None], number: int) -> Iterator[bytes | None]:
    """A quirk of etcd: with a sort target but no order, only the first keys take part in the sort."""
    taken = 0
    for record in walk:
        if record is None or taken < number:
            yield record
        taken += record is not None


def _has_filters(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _filter_of(request: RangeRequest) -> Callable[[KeyValue], bool] | None:
    if not _has_filters(request):
        return None
    least_mod, most_mod = request.min_mod_revision, request.max_mod_revision
    least_create, most_create = request.min_create_revision, request.max_create_revision

    def passes(kv: KeyValue) -> bool:
        return (
            (not least_mod or kv.mod_revision >= least_mod)
            and (not most_mod or kv.mod_revision <= most_mod)
            and (not least_create or kv.create_revision >= least_create)
            and (not most_create or kv.create_revision <= most_create)
        )

    return passes
