"""Transactions: compare, then or else; nested; all in one revision.

A transaction runs in three steps, each over the whole chosen path, nested transactions included:
choose the branches by their compares, check what could fail, execute. The first two see the state
before anything was written, so a transaction is refused whole or executed whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import eq, gt, lt, ne
from typing import TypeAlias

from connect_kv import etcd_errors
from connect_kv.kv import layout, scan, wire
from connect_kv.kv.layout import Changes, StoreState
from connect_kv.kv.leases import LeaseTable
from connect_kv.kv.range_counts import RangeCounts
from connect_kv.kv.ranges import RangeRead
from connect_kv.kv.scan import Walk
from connect_kv.kv.store import MvccStore
from connect_kv.protowire import MessagePieces, field
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
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

_SUCCEEDED = TxnResponse(succeeded=True).SerializeToString()
_NO_HEADER = b"\x0a\x00"
"""That of a nested response: there, and empty."""
_RESPONSES = b"\x1a"
"""TxnResponse.responses = 3."""
_RANGE, _PUT, _DELETE_RANGE, _TXN = b"\x0a", b"\x12", b"\x1a", b"\x22"
"""The fields of a ResponseOp."""
_DELETED_KVS = b"\x1a"
"""DeleteRangeResponse.prev_kvs = 3."""

Operation: TypeAlias = "PutRequest | RangeRequest | DeleteRangeRequest | Branch | None"
"""None stands for an empty one: answered with an empty response."""


@dataclass(slots=True)
class Branch:
    """What a transaction will execute, as its compares chose; nested transactions have their own."""

    succeeded: bool
    operations: list[Operation]
    pairs: list[tuple[bytes, bytes]] | None = None
    """In place of operations, where all are puts without options: keys and values."""


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
    plain = _only_plain_puts(request)
    if plain:
        return Branch(True, [], plain)
    succeeded = True
    for compare in request.compare:
        if not (yield from _holds(reader, compare)):
            succeeded = False
            break
    chosen = request.success if succeeded else request.failure
    pairs = yield from _plain_puts(chosen)
    if pairs is not None:
        return Branch(succeeded, [], pairs)
    operations: list[Operation] = []
    for op in chosen:
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


def _only_plain_puts(request: TxnRequest) -> list[tuple[bytes, bytes]] | None:
    """Keys and values, if the transaction is nothing but puts without options, and not very many.

    An option takes bytes, and so does whatever else could be in it: where it is as large as its keys and
    values alone make it, there is none.
    """
    ops = request.success
    if request.compare or request.failure or len(ops) > scan.SLICE_RECORDS:
        return None
    pairs = [((put := op.request_put).key, put.value) for op in ops]
    if sum([wire.plain_put_op_size(len(key), len(value)) for key, value in pairs]) != request.ByteSize():
        return None
    return pairs if all([key for key, _ in pairs]) else None


def _plain_puts(ops: Sequence[RequestOp]) -> Walk[list[tuple[bytes, bytes]] | None]:
    """Keys and values, if nothing else is to be done."""
    pairs: list[tuple[bytes, bytes]] = []
    for op in ops:
        if not op.HasField("request_put"):
            return None
        put = op.request_put
        if put.lease or put.prev_kv or put.ignore_value or put.ignore_lease:
            return None
        pairs.append((put.key, put.value))
        if not len(pairs) % scan.SLICE_RECORDS:
            yield
    return pairs


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


def check(reader: Reader, state: StoreState, leases: LeaseTable, branch: Branch) -> Walk[None]:
    """Refuse the transaction if an operation that was chosen would fail. Raises Refused.

    Of several that would, the first in the order of writing is told, nested ones where they stand.
    """
    deleted_from: bytes | None = None
    for number, op in enumerate(_flat(branch), 1):
        if isinstance(op, PutRequest):
            _check_put(reader, leases, op, deleted_from)
        elif isinstance(op, RangeRequest):
            _check_range(op, state)
        elif isinstance(op, DeleteRangeRequest) and op.range_end == layout.FROM_KEY:
            deleted_from = op.key if deleted_from is None else min(op.key, deleted_from)
        if not number % scan.SLICE_RECORDS:
            yield


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
        raise etcd_errors.FUTURE_REVISION.error()
    if request.revision != 0 and request.revision < state.compacted:
        raise etcd_errors.COMPACTED.error()


def _check_put(reader: Reader, leases: LeaseTable, request: PutRequest, deleted_from: bytes | None) -> None:
    """What it keeps must be there before, and still be there: of the deletes that `validation` lets
    stand beside a put, only those of all keys from one on can have taken it.
    """
    if request.ignore_value or request.ignore_lease:
        gone = deleted_from is not None and request.key >= deleted_from
        if gone or reader.get(layout.CURRENT + request.key) is None:
            raise etcd_errors.KEY_NOT_FOUND.error()
    if request.lease and leases.get(request.lease) is None:
        raise etcd_errors.LEASE_NOT_FOUND.error()


class TxnWrite:
    """Executes what was chosen and checked into the changes of a slice."""

    def __init__(self, store: MvccStore, changes: Changes) -> None:
        self._store = store
        self._changes = changes
        self._plain: bytes | None = None
        """The answer to every put that tells nothing but the revision, which is the same for all."""
        self._written = 0

    def execute(self, branch: Branch) -> Walk[MessagePieces]:
        """Run it: a TxnResponse without the header. The caller finishes the revision."""
        answer = MessagePieces(_SUCCEEDED if branch.succeeded else b"")
        if branch.pairs:
            yield from self._put_all(branch.pairs)
            answer.add(self._plain_answer() * len(branch.pairs))
        for op in branch.operations:
            if isinstance(op, PutRequest) and not op.prev_kv:
                _write(self._store, self._changes, op)
                answer.add(self._plain_answer())
                self._written += 1
                if not self._written % scan.SLICE_WRITES:
                    yield
            else:
                answer.add_field(_RESPONSES, (yield from self._operation(op)))
        return answer

    def _put_all(self, pairs: Sequence[tuple[bytes, bytes]]) -> Walk[None]:
        """Together, where none of the keys can have been changed by what came before."""
        store, changes = self._store, self._changes
        together = not store.written and len({key for key, _ in pairs}) == len(pairs)
        for start in range(0, len(pairs), scan.SLICE_WRITES):
            piece = pairs[start : start + scan.SLICE_WRITES]
            if together:
                store.put_all(changes, piece)
            else:
                for key, value in piece:
                    store.put(changes, key, value, 0)
            before = self._written // scan.SLICE_WRITES
            self._written += len(piece)
            if self._written // scan.SLICE_WRITES > before:
                yield

    def _plain_answer(self) -> bytes:
        """To a put that has been executed."""
        if self._plain is None:
            response = field(_PUT, wire.header(self._store.writing))
            self._plain = field(_RESPONSES, response)
        return self._plain

    def _operation(self, op: Operation) -> Walk[MessagePieces]:
        """A ResponseOp."""
        answer = MessagePieces()
        if isinstance(op, PutRequest):
            answer.add(field(_PUT, put(self._store, self._changes, op).SerializeToString()))
        elif isinstance(op, RangeRequest):
            state = self._store.state._replace(revision=self._store.writing)
            found = yield from _range(self._changes, state, op, self._store.range_counts)
            answer.add_field(_RANGE, found)
        elif isinstance(op, DeleteRangeRequest):
            deleted = yield from delete_range(self._store, self._changes, op)
            answer.add_field(_DELETE_RANGE, deleted)
        elif op is not None:
            nested = yield from self.execute(op)
            answer.add_field(_TXN, nested.begin_with(_NO_HEADER))
        return answer


def _write(store: MvccStore, changes: Changes, request: PutRequest) -> bytes | None:
    value = None if request.ignore_value else request.value
    lease = None if request.ignore_lease else request.lease
    return store.put(changes, request.key, value, lease, previous=request.prev_kv)


def put(store: MvccStore, changes: Changes, request: PutRequest) -> PutResponse:
    """Execute a checked Put."""
    old = _write(store, changes, request)
    response = PutResponse()
    response.header.revision = store.writing
    if request.prev_kv and old is not None:
        response.prev_kv.ParseFromString(old)
    return response


def delete_range(store: MvccStore, changes: Changes, request: DeleteRangeRequest) -> Walk[MessagePieces]:
    """Execute a DeleteRange: its response."""
    records = yield from store.delete_range(changes, request.key, request.range_end)
    numbers = DeleteRangeResponse(deleted=len(records)).SerializeToString()
    answer = MessagePieces(wire.header(store.writing), numbers)
    if request.prev_kv:
        for number, record in enumerate(records, 1):
            answer.add(field(_DELETED_KVS, record))
            if not number % scan.SLICE_RECORDS:
                yield
    return answer


def _range(
    reader: Reader, state: StoreState, request: RangeRequest, range_counts: RangeCounts
) -> Walk[MessagePieces]:
    """A whole Range, for where the answer is part of a larger one."""
    answer = MessagePieces(wire.header(state.revision))
    read = RangeRead(reader, state, request, range_counts)
    for _ in read.run():
        answer.add(read.take())
        yield
    answer.add(read.take())
    answer.add(RangeResponse(more=read.more, count=read.count).SerializeToString())
    return answer


def read_only(
    reader: Reader, state: StoreState, leases: LeaseTable, request: TxnRequest, range_counts: RangeCounts
) -> Walk[MessagePieces]:
    """A transaction for which `is_read_only` holds, over one frozen state; without the header.

    Raises Refused.
    """
    branch = yield from choose(reader, request)
    yield from check(reader, state, leases, branch)
    answer = MessagePieces(_SUCCEEDED if branch.succeeded else b"")
    for op in branch.operations:
        assert isinstance(op, RangeRequest)
        response = MessagePieces()
        response.add_field(_RANGE, (yield from _range(reader, state, op, range_counts)))
        answer.add_field(_RESPONSES, response)
    return answer
