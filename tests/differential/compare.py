"""Are two answers the same, but for what no server promises?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from tests.differential import intended
from tests.differential.target import Failed

TTL_SLACK = 3
"""Seconds by which two remaining times of the same lease may differ."""


def difference(request: Message, theirs: Message | Failed, ours: Message | Failed) -> str | None:
    """None if equal; else what differs. Ids and terms, which belong to a cluster, are not looked at."""
    if isinstance(theirs, Failed) or isinstance(ours, Failed):
        same = theirs == ours or _same_refusal(request, theirs, ours)
        return None if same else f"{_show(theirs)} != {_show(ours)}"
    left, right = _plain(request, theirs), _plain(request, ours)
    if isinstance(left, lease.LeaseTimeToLiveResponse) and isinstance(right, lease.LeaseTimeToLiveResponse):
        if abs(left.TTL - right.TTL) > TTL_SLACK or (left.TTL < 0) != (right.TTL < 0):
            return f"TTL {left.TTL} != {right.TTL}"
        left.TTL = right.TTL
    return None if left == right else f"{_show(left)} != {_show(right)}"


def _same_refusal(request: Message, theirs: Any, ours: Any) -> bool:
    """Whether both refuse, differently on purpose (docs/api.md).

    Locks and elections refuse with the code of the call within where etcd says UNKNOWN. Of several
    operations of a transaction that fail, etcd 3.5 tells the first put, 3.6 and we the first.
    """
    if isinstance(request, kv.TxnRequest) and isinstance(theirs, Failed) and isinstance(ours, Failed):
        return theirs.text in intended.PUT_FAILS and ours.text in intended.RANGE_FAILS
    package = request.DESCRIPTOR.file.name.rsplit("/", 1)[-1]
    return (
        package in {"lock.proto", "election.proto"}
        and isinstance(theirs, Failed)
        and isinstance(ours, Failed)
        and (theirs.code, theirs.text) == ("UNKNOWN", ours.text)
    )


def _show(answer: Message | Failed) -> str:
    return str(answer).replace("\n", " ")


def _plain(request: Message, answer: Message) -> Any:
    """A copy without what may differ: cluster ids, and the order among equals."""
    copy: Any = type(answer)()
    copy.CopyFrom(answer)
    if copy.HasField("header"):
        copy.header.ClearField("cluster_id")
        copy.header.ClearField("member_id")
        copy.header.ClearField("raft_term")
    if isinstance(copy, kv.RangeResponse) and isinstance(request, kv.RangeRequest):
        _sort_ties(request, copy)
    elif isinstance(copy, kv.TxnResponse) and isinstance(request, kv.TxnRequest):
        _sort_ties_in(request, copy)
    elif isinstance(copy, lease.LeaseTimeToLiveResponse):
        copy.keys[:] = sorted(copy.keys)
    elif isinstance(copy, lease.LeaseLeasesResponse):
        ids = sorted(one.ID for one in copy.leases)
        del copy.leases[:]
        copy.leases.extend(lease.LeaseStatus(ID=one) for one in ids)
    return copy


SORT_BY: dict[int, Callable[[kv.KeyValue], Any]] = {
    kv.RangeRequest.VERSION: lambda one: one.version,
    kv.RangeRequest.CREATE: lambda one: one.create_revision,
    kv.RangeRequest.MOD: lambda one: one.mod_revision,
    kv.RangeRequest.VALUE: lambda one: one.value,
}


def _sort_ties(request: kv.RangeRequest, answer: kv.RangeResponse) -> None:
    """Among equals the order is undefined; with a limit, so is which of them are returned at the end."""
    by = SORT_BY.get(request.sort_target)
    if by is None:
        return
    if request.keys_only and request.sort_target == kv.RangeRequest.VALUE:
        key_values = sorted(answer.kvs, key=lambda one: one.key) if not answer.more else []
    else:
        ordered = list(answer.kvs)
        if ordered != sorted(ordered, key=by, reverse=request.sort_order == kv.RangeRequest.DESCEND):
            return
        last = by(ordered[-1]) if ordered and answer.more else None
        key_values = sorted(
            (one for one in ordered if not answer.more or by(one) != last), key=lambda one: (by(one), one.key)
        )
    del answer.kvs[:]
    answer.kvs.extend(key_values)


def _sort_ties_in(request: kv.TxnRequest, answer: kv.TxnResponse) -> None:
    for operation, response in zip(
        request.success if answer.succeeded else request.failure, answer.responses, strict=False
    ):
        if operation.HasField("request_range") and response.HasField("response_range"):
            _sort_ties(operation.request_range, response.response_range)
        elif operation.HasField("request_txn") and response.HasField("response_txn"):
            _sort_ties_in(operation.request_txn, response.response_txn)
