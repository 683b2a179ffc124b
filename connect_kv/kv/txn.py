"""Transactions: compare, then or else; nested; all in one revision.

A transaction runs in three steps, each over the whole chosen path, nested transactions included:
choose the branches by their compares, check what could fail, execute. The first two see the state
before anything was written, so a transaction is refused whole or executed whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import eq, gt, lt, ne
from typing import TypeAlias

from connect_kv.kv import layout, refusals, scan
from connect_kv.kv.census import Census
from connect_kv.kv.layout import Changes, StoreState
from connect_kv.kv.leases import LeaseTable
from connect_kv.kv.ranges import RangeRead
from connect_kv.kv.scan import Walk
from connect_kv.kv.store import MvccStore
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from connect_kv.storage.engine import Reader

_TARGETS = {
    Compare.VERSION: "version",
    Compare.CREATE: "create_revision",
    Compare.MOD: "mod_revision",
    Compare.VALUE: "value",
    Compare.LEASE: "lease",
}
_OPERATORS = {Compare.EQUAL: eq, Compare.GREATER: gt, Compare.LESS: lt, Compare.NOT_EQUAL: ne}
_MISSING = KeyValue()

Operation: TypeAlias = "PutRequest | RangeRequest | DeleteRangeRequest | Branch | None"
"""None stands for an empty one: answered with an empty response."""


@dataclass(slots=True)
class Branch:
    """What a transaction will execute, as its compares chose; nested transactions have their own."""

    succeeded: bool
    operations: list[Operation]


def is_read_only(request: TxnRequest) -> bool:
    """Whether both branches only read, so that nothing needs to be replicated.

    A nested transaction always goes through the log, as in etcd.
    """
    return all(op.HasField("request_range") for ops in (request.success, request.failure) for op in ops)


def is_serializable(request: TxnRequest) -> bool:
    """Whether a read-only transaction may be answered from this member's state, be it old."""
    ranges = [op.request_range for ops in (request.success, request.failure) for op in ops]
    return bool(ranges) and all(read.serializable for read in ranges)


def choose(reader: Reader, request: TxnRequest) -> Walk[Branch]:
    """Evaluate the compares of the transaction and of those nested in the branches chosen."""
    succeeded = True
    for compare in request.compare:
        if not (yield from _holds(reader, compare)):
            succeeded = False
            break
    operations: list[Operation] = []
    for op in request.success if succeeded else request.failure:
        match op.WhichOneof("request"):
            case "request_put":
                operations.append(op.request_put)
            case "request_range":
                operations.append(op.request_range)
            case "request_delete_range":
                operations.append(op.request_delete_range)
            case "request_txn":
                operations.append((yield from choose(reader, op.request_txn)))
            case _:
                operations.append(None)
    return Branch(succeeded, operations)


def _holds(reader: Reader, compare: Compare) -> Walk[bool]:
    """Whether every key of the range compares so; a missing one has zeros, and never a value."""
    found = False
    for record in scan.current(reader, compare.key, compare.range_end):
        if record is None:
            yield
            continue
        found = True
        if not _compares(scan.parse(record), compare):
            return False
    if found:
        return True
    return compare.target != Compare.VALUE and _compares(_MISSING, compare)


def _compares(kv: KeyValue, compare: Compare) -> bool:
    field = _TARGETS.get(compare.target)
    operator = _OPERATORS.get(compare.result)
    if field is None or operator is None:
        return True  # an enum number of a later API; etcd lets it pass
    given = getattr(compare if compare.WhichOneof("target_union") == field else _MISSING, field)
    return bool(operator(getattr(kv, field), given))


def check(reader: Reader, state: StoreState, leases: LeaseTable, branch: Branch) -> None:
    """Refuse the transaction if an operation that was chosen would fail. Raises Refused.

    All puts are checked before the first range, so of several reasons the same is given as by etcd 3.5.
    """
    operations = list(_flat(branch))
    deleted_from: bytes | None = None
    for op in operations:
        if isinstance(op, PutRequest):
            _check_put(reader, leases, op, deleted_from)
        elif isinstance(op, DeleteRangeRequest) and op.range_end == layout.FROM_KEY:
            deleted_from = op.key if deleted_from is None else min(op.key, deleted_from)
    for op in operations:
        if isinstance(op, RangeRequest):
            _check_range(op, state)


def _flat(branch: Branch) -> Iterator[Operation]:
    """The operations in order, nested ones in their place."""
    for op in branch.operations:
        if isinstance(op, Branch):
            yield from _flat(op)
        else:
            yield op


def _check_range(request: RangeRequest, state: StoreState) -> None:
    """Unlike outside a transaction, a negative revision is one that was compacted (as in etcd)."""
    if request.revision > state.revision:
        raise refusals.FUTURE_REVISION.error()
    if request.revision != 0 and request.revision < state.compacted:
        raise refusals.COMPACTED.error()


def _check_put(reader: Reader, leases: LeaseTable, request: PutRequest, deleted_from: bytes | None) -> None:
    """What it keeps must be there before, and still be there: of the deletes that `validation` lets
    stand beside a put, only those of all keys from one on can have taken it (etcd would crash there).
    """
    if request.ignore_value or request.ignore_lease:
        gone = deleted_from is not None and request.key >= deleted_from
        if gone or reader.get(layout.CURRENT + request.key) is None:
            raise refusals.KEY_NOT_FOUND.error()
    if request.lease and leases.get(request.lease) is None:
        raise refusals.LEASE_NOT_FOUND.error()


class TxnWrite:
    """Executes what was chosen and checked into the changes of a slice."""

    def __init__(self, store: MvccStore, changes: Changes) -> None:
        self._store = store
        self._changes = changes
        self._plain: ResponseOp | None = None
        """The answer to every put that tells nothing but the revision, which is the same for all."""

    def execute(self, branch: Branch) -> TxnResponse:
        """Run it; the caller finishes the revision and fills the outer header."""
        responses = [self._operation(op) for op in branch.operations]
        return TxnResponse(header=ResponseHeader(), succeeded=branch.succeeded, responses=responses)

    def _operation(self, op: Operation) -> ResponseOp:
        if isinstance(op, PutRequest):
            return self._put(op)
        if isinstance(op, RangeRequest):
            return ResponseOp(response_range=self._range(op))
        if isinstance(op, DeleteRangeRequest):
            return ResponseOp(response_delete_range=delete_range(self._store, self._changes, op))
        return ResponseOp() if op is None else ResponseOp(response_txn=self.execute(op))

    def _put(self, request: PutRequest) -> ResponseOp:
        if request.prev_kv:
            return ResponseOp(response_put=put(self._store, self._changes, request))
        _write(self._store, self._changes, request)
        if self._plain is None:
            header = ResponseHeader(revision=self._store.writing)
            self._plain = ResponseOp(response_put=PutResponse(header=header))
        return self._plain

    def _range(self, request: RangeRequest) -> RangeResponse:
        state = self._store.state._replace(revision=self._store.writing)
        return scan.drain(read_range(self._changes, state, request, self._store.census))


def _write(store: MvccStore, changes: Changes, request: PutRequest) -> bytes | None:
    value = None if request.ignore_value else request.value
    lease = None if request.ignore_lease else request.lease
    return store.put(changes, request.key, value, lease)


def put(store: MvccStore, changes: Changes, request: PutRequest) -> PutResponse:
    """Execute a checked Put."""
    old = _write(store, changes, request)
    response = PutResponse()
    response.header.revision = store.writing
    if request.prev_kv and old is not None:
        response.prev_kv.ParseFromString(old)
    return response


def delete_range(store: MvccStore, changes: Changes, request: DeleteRangeRequest) -> DeleteRangeResponse:
    """Execute a DeleteRange."""
    records = store.delete_range(changes, request.key, request.range_end)
    response = DeleteRangeResponse(deleted=len(records))
    response.header.revision = store.writing
    if request.prev_kv:
        for record in records:
            response.prev_kvs.add().ParseFromString(record)
    return response


def read_range(
    reader: Reader, state: StoreState, request: RangeRequest, census: Census
) -> Walk[RangeResponse]:
    """A whole Range, for where the answer is part of a larger one."""
    response = RangeResponse()
    read = RangeRead(reader, state, request, census)
    for _ in read.run():
        response.MergeFromString(read.take())
        yield
    response.MergeFromString(read.take())
    response.MergeFrom(read.tail())
    return response


def read_only(
    reader: Reader, state: StoreState, leases: LeaseTable, request: TxnRequest, census: Census
) -> Walk[TxnResponse]:
    """A transaction for which `is_read_only` holds, over one frozen state. Raises Refused."""
    branch = yield from choose(reader, request)
    check(reader, state, leases, branch)
    response = TxnResponse(succeeded=branch.succeeded)
    response.header.revision = state.revision
    for op in branch.operations:
        assert isinstance(op, RangeRequest)
        found = yield from read_range(reader, state, op, census)
        response.responses.add().response_range.CopyFrom(found)
    return response
