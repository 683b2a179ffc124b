"""The parts of a transaction: conditions that must all hold, and what is done then, or otherwise.

await client.transaction(
    compare=[txn.version("lock", "=", 0)],
    success=[txn.put("lock", "mine")],
    failure=[txn.get("lock")],
)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from connect_kv.client.ranges import Text, span, to_bytes
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

__all__ = ["create_revision", "delete", "get", "lease", "mod_revision", "put", "value", "version"]

Operator = Literal["=", "!=", "<", ">"]
"""How the stored value must relate to the given one."""

_RESULTS: dict[str, Compare.CompareResult.ValueType] = {
    "=": Compare.EQUAL,
    "!=": Compare.NOT_EQUAL,
    "<": Compare.LESS,
    ">": Compare.GREATER,
}


def version(
    key: Text, operator: Operator, version: int, *, range_end: Text = b"", prefix: bool = False
) -> Compare:
    """How often the key was put since it was created; 0: it does not exist."""
    return _compare(key, operator, range_end, prefix, target=Compare.VERSION, version=version)


def create_revision(
    key: Text, operator: Operator, revision: int, *, range_end: Text = b"", prefix: bool = False
) -> Compare:
    """The revision that created the key; 0: it does not exist."""
    return _compare(key, operator, range_end, prefix, target=Compare.CREATE, create_revision=revision)


def mod_revision(
    key: Text, operator: Operator, revision: int, *, range_end: Text = b"", prefix: bool = False
) -> Compare:
    """The revision of the last put; 0: it does not exist."""
    return _compare(key, operator, range_end, prefix, target=Compare.MOD, mod_revision=revision)


def value(
    key: Text, operator: Operator, value: Text, *, range_end: Text = b"", prefix: bool = False
) -> Compare:
    """The value, bytewise. Never true of a key that does not exist."""
    return _compare(key, operator, range_end, prefix, target=Compare.VALUE, value=to_bytes(value))


def _compare(key: Text, operator: Operator, range_end: Text, prefix: bool, **what: Any) -> Compare:
    start, end = span(key, range_end, prefix)
    return Compare(key=start, range_end=end, result=_RESULTS[operator], **what)


class HasLeaseId(Protocol):
    """A lease of the client, asynchronous or blocking."""

    @property
    def id(self) -> int:
        """The lease's number in the cluster."""


def lease(
    key: Text, operator: Operator, lease: int | HasLeaseId, *, range_end: Text = b"", prefix: bool = False
) -> Compare:
    """The lease it is attached to; 0: none."""
    return _compare(key, operator, range_end, prefix, target=Compare.LEASE, lease=_id(lease))


def put(
    key: Text,
    value: Text,
    *,
    lease: int | HasLeaseId = 0,
    prev_kv: bool = False,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> RequestOp:
    """Store a value; the key is attached to `lease`, or to none."""
    request = PutRequest(
        key=to_bytes(key),
        value=to_bytes(value),
        lease=_id(lease),
        prev_kv=prev_kv,
        ignore_value=ignore_value,
        ignore_lease=ignore_lease,
    )
    return RequestOp(request_put=request)


def get(key: Text, *, range_end: Text = b"", prefix: bool = False, limit: int = 0) -> RequestOp:
    """Read a key, or a range of them, with what was written earlier in the same transaction."""
    start, end = span(key, range_end, prefix)
    return RequestOp(request_range=RangeRequest(key=start, range_end=end, limit=limit))


def delete(key: Text, *, range_end: Text = b"", prefix: bool = False, prev_kv: bool = False) -> RequestOp:
    """Delete a key, or a range of them."""
    start, end = span(key, range_end, prefix)
    return RequestOp(request_delete_range=DeleteRangeRequest(key=start, range_end=end, prev_kv=prev_kv))


def transaction(
    compare: Sequence[Compare] = (), success: Sequence[RequestOp] = (), failure: Sequence[RequestOp] = ()
) -> RequestOp:
    """A transaction within a transaction; its conditions see the state before the outer one."""
    return RequestOp(request_txn=TxnRequest(compare=compare, success=success, failure=failure))


def _id(lease: int | HasLeaseId) -> int:
    return lease if isinstance(lease, int) else lease.id
