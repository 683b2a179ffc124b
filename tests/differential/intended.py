"""Differences that are meant, each listed in docs/api.md with its reason.

Random sequences keep clear of what `CASES` holds (`generator`), with one exception: `same_watch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from connect_kv.rpc import election_pb2 as election
from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lock_pb2 as lock
from connect_kv.rpc import watch_pb2 as watch
from tests.differential.target import Failed, Target

STREAM_SORT = "RangeStream does not support custom sort orders"
STREAM_FILTERS = "RangeStream does not support revision filters"

PUT_FAILS = frozenset({"etcdserver: requested lease not found", "etcdserver: key not found"})
RANGE_FAILS = frozenset(
    {
        "etcdserver: mvcc: required revision has been compacted",
        "etcdserver: mvcc: required revision is a future revision",
    }
)
"""What operations of a transaction can be refused for when they are looked at beside the state."""

SILENCE = 0.5
"""Seconds in which a response that is not to come would have come."""
REQUEST_LIMIT = 1_572_864
UNKNOWN: Any = 7
"""Not a number of any of the API's enums."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request that etcd 3.5.1 and connect-kv answer differently."""

    title: str
    """As in the table of docs/api.md."""
    ask: Callable[[Target], Any]
    theirs: Any
    ours: Any


def same_watch(theirs: list[Any], ours: list[Any], compactions: set[int]) -> bool:
    """Whether a watch was told the same on both sides.

    A deletion exactly at the compacted revision: etcd keeps it for watches from 3.5.16 on, and we do.
    """
    at = 0
    for said in ours:
        if at < len(theirs) and theirs[at] == said:
            at += 1
        elif not _deleted_at(said, compactions):
            return False
    return at == len(theirs)


def _deleted_at(said: Any, revisions: set[int]) -> bool:
    if not isinstance(said, bytes):
        return False
    event = kv.Event.FromString(said)
    return event.type == kv.Event.DELETE and event.kv.mod_revision in revisions


def _status(answer: Any) -> Any:
    return (answer.code, answer.text) if isinstance(answer, Failed) else "OK"


def _said(target: Target, *requests: watch.WatchRequest) -> Sequence[tuple[int, str]]:
    """What a watch stream answers to some requests: ids, and what became of them."""
    stream = target.watch()
    for request in requests:
        stream.send(request)
        time.sleep(SILENCE / 2)
    stream.until(lambda: False, SILENCE)
    stream.close()
    return [
        (
            one.watch_id,
            "created" * one.created + "canceled" * one.canceled + one.cancel_reason
            or ("events" if one.events else "progress"),
        )
        for one in stream.received
    ]


def _create(**options: Any) -> watch.WatchRequest:
    return watch.WatchRequest(create_request=watch.WatchCreateRequest(key=b"a", **options))


_PROGRESS = watch.WatchRequest(progress_request=watch.WatchProgressRequest())


def _deleted_then_compacted(target: Target) -> Sequence[tuple[int, str]]:
    target.call(kv.PutRequest(key=b"a"))
    deleted = target.call(kv.DeleteRangeRequest(key=b"a"))
    assert isinstance(deleted, kv.DeleteRangeResponse)
    revision = deleted.header.revision
    target.call(kv.CompactionRequest(revision=revision, physical=True))
    return _said(target, _create(start_revision=revision))


def _missed_much(target: Target) -> Any:
    """What a client that takes 4 MiB is told by a watch that missed more: numbers of events, or its end."""
    begin = 0
    for number in range(4):
        put = target.call(kv.PutRequest(key=b"large/%d" % number, value=bytes(1_200_000)))
        assert isinstance(put, kv.PutResponse)
        begin = begin or put.header.revision
    stream = target.watch(limited=True)
    create = watch.WatchCreateRequest(key=b"large", range_end=b"largf", start_revision=begin)
    stream.send(watch.WatchRequest(create_request=create))
    told = [0]

    def ended() -> bool:
        told[0] = sum(len(one.events) for one in stream.received)
        return told[0] == 4 or stream.failed is not None

    assert stream.until(ended, 10)
    failed = stream.failed
    stream.close()
    target.call(kv.DeleteRangeRequest(key=b"large", range_end=b"largf"))
    return told[0] if failed is None else failed.code


def _refused_contests(target: Target) -> Any:
    """What locks and elections say to a lease that is not there, and to a key that is not given."""
    nobody = election.LeaderKey(name=b"a", rev=1)
    requests = (
        lock.LockRequest(name=b"a", lease=99),
        lock.UnlockRequest(),
        election.CampaignRequest(name=b"a", lease=99),
        election.ProclaimRequest(leader=nobody),
        election.ResignRequest(leader=nobody),
    )
    return [_status(target.call(request)) for request in requests]


_NO_LEASE, _NO_KEY = "etcdserver: requested lease not found", "etcdserver: key is not provided"


def _nested(depth: int) -> kv.TxnRequest:
    """So many transactions within each other, a put in the innermost."""
    request = kv.TxnRequest(success=[kv.RequestOp(request_put=kv.PutRequest(key=b"a"))])
    for _ in range(depth - 1):
        request = kv.TxnRequest(success=[kv.RequestOp(request_txn=request)])
    return request


def _two_that_fail(target: Target) -> Any:
    """Two operations that fail, in both orders."""
    put = kv.RequestOp(request_put=kv.PutRequest(key=b"a", lease=99))
    read = kv.RequestOp(request_range=kv.RangeRequest(key=b"a", revision=1 << 40))
    return [_status(target.call(kv.TxnRequest(success=both))) for both in ([put, read], [read, put])]


CASES = [
    Case(
        "Several operations of a transaction that fail",
        _two_that_fail,
        [("NOT_FOUND", _NO_LEASE), ("NOT_FOUND", _NO_LEASE)],
        [
            ("NOT_FOUND", _NO_LEASE),
            ("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision"),
        ],
    ),
    Case(
        "An unknown sort order",
        lambda target: _status(target.call(kv.RangeRequest(key=b"a", sort_order=UNKNOWN))),
        "OK",
        ("INVALID_ARGUMENT", "etcdserver: invalid sort option"),
    ),
    Case(
        "A request over the transport's limit",
        lambda target: _status(target.call(kv.PutRequest(key=b"a", value=bytes(2_500_000)))),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (2500008 vs. 2097152)"),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (2500008 vs. 2097152)"),
    ),
    Case(
        "The last bytes below the size limit",
        lambda target: _status(target.call(kv.PutRequest(key=b"a", value=bytes(REQUEST_LIMIT - 10)))),
        ("INVALID_ARGUMENT", "etcdserver: request is too large"),
        "OK",
    ),
    Case(
        "A transaction within more than 31 others",
        lambda target: [_status(target.call(_nested(depth))) for depth in (32, 33)],
        ["OK", "OK"],
        ["OK", ("INVALID_ARGUMENT", "connect-kv: transactions are nested too deeply")],
    ),
    Case(
        "What a lock or an election refuses",
        _refused_contests,
        [("UNKNOWN", text) for text in (_NO_LEASE, _NO_KEY, _NO_LEASE, _NO_KEY, _NO_KEY)],
        [
            ("NOT_FOUND", _NO_LEASE),
            ("INVALID_ARGUMENT", _NO_KEY),
            ("NOT_FOUND", _NO_LEASE),
            ("INVALID_ARGUMENT", _NO_KEY),
            ("INVALID_ARGUMENT", _NO_KEY),
        ],
    ),
    Case(
        "A watch that missed more than 4 MiB",
        _missed_much,
        "RESOURCE_EXHAUSTED",
        4,
    ),
    Case(
        "A deletion exactly at the compacted revision",
        _deleted_then_compacted,
        [(0, "created")],
        [(0, "created"), (0, "events")],
    ),
    Case(  # after a compaction, which the one before has made
        "A watch from a negative revision",
        lambda target: _said(target, _create(start_revision=-1)),
        [(0, "created"), (0, "canceled")],
        [(-1, "createdcanceledetcdserver: mvcc: required revision has been compacted")],
    ),
    Case(
        "Progress asked for without a watch",
        lambda target: _said(target, _PROGRESS),
        [(-1, "progress")],
        [],
    ),
    Case(
        "Progress asked for while a watch waits for a future revision",
        lambda target: _said(target, _create(start_revision=1 << 40), _PROGRESS),
        [(0, "created"), (-1, "progress")],
        [(0, "created")],
    ),
]
