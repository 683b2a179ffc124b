"""What is wrong with a request by itself, whatever the state: checked before anything is proposed.

Each function returns None or raises Refused with etcd's code and text.
"""

from __future__ import annotations

from collections.abc import Iterable

from connect_kv import etcd_errors
from connect_kv.kv import layout
from connect_kv.kv.intervals import IntervalIndex
from connect_kv.kv.leases import MAXIMUM_TTL
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest
from connect_kv.rpc.maintenance_pb2 import AlarmRequest, AlarmType

"""Encoded bytes of one command (1.5 MiB)."""
MAXIMUM_TXN_OPS = 128
"""Compares or operations of a transaction; those nested in it share what is left."""

MAXIMUM_TXN_DEPTH = 32
"""Transactions within each other. Protobuf reads no more than a hundred messages within each other: a
command, and its stored answer, must keep well below, for an entry that cannot be read stops every member."""

_SORT_ORDERS = frozenset(RangeRequest.SortOrder.values())
_SORT_TARGETS = frozenset(RangeRequest.SortTarget.values())
_ALARM_ACTIONS = frozenset(AlarmRequest.AlarmAction.values())
_ALARMS = frozenset(AlarmType.values())


def check_command(command: Command, *, maximum_txn_ops: int = MAXIMUM_TXN_OPS) -> None:
    """Check whichever key/value, lease or alarm request a command holds; other kinds pass."""
    match command.WhichOneof("request"):
        case "put":
            check_put(command.put)
        case "range":
            check_range(command.range)
        case "delete_range":
            check_delete_range(command.delete_range)
        case "txn":
            check_txn(command.txn, maximum_txn_ops)
        case "lease_grant":
            check_lease_grant(command.lease_grant)
        case "alarm":
            check_alarm(command.alarm)


def check_range(request: RangeRequest) -> None:
    """A key, and a sort we know."""
    if not request.key:
        raise etcd_errors.EMPTY_KEY.error()
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        raise etcd_errors.INVALID_SORT.error()


def check_range_stream(request: RangeRequest) -> None:
    """As for Range; besides, an order may only be given where it is that of the keys, and no filter.

    Without an order any target is accepted, as in etcd 3.7. That sorts each chunk by itself; here they are
    sorted together, so that they merge into what Range answers.
    """
    check_range(request)
    ordered = request.sort_order != RangeRequest.NONE
    if ordered and (request.sort_order, request.sort_target) != (RangeRequest.ASCEND, RangeRequest.KEY):
        raise etcd_errors.STREAM_SORT.error()
    filters = (
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
    if any(filters):
        raise etcd_errors.STREAM_FILTERS.error()


def check_put(request: PutRequest) -> None:
    """A key, and nothing given that is to be ignored."""
    if not request.key:
        raise etcd_errors.EMPTY_KEY.error()
    if request.ignore_value and request.value:
        raise etcd_errors.VALUE_PROVIDED.error()
    if request.ignore_lease and request.lease:
        raise etcd_errors.LEASE_PROVIDED.error()


def check_delete_range(request: DeleteRangeRequest) -> None:
    """A key."""
    if not request.key:
        raise etcd_errors.EMPTY_KEY.error()


def check_lease_grant(request: LeaseGrantRequest) -> None:
    """A TTL that can be counted."""
    if request.TTL > MAXIMUM_TTL:
        raise etcd_errors.LEASE_TTL_TOO_LARGE.error()


def check_alarm(request: AlarmRequest) -> None:
    """An action and a type of alarm that we know: enums of the wire hold any number."""
    if request.action not in _ALARM_ACTIONS or request.alarm not in _ALARMS:
        raise etcd_errors.UNKNOWN_ALARM.error()


def check_txn(request: TxnRequest, maximum_ops: int = MAXIMUM_TXN_OPS) -> None:
    """Every operation of both branches, their number, and that no key is written twice."""
    if _only_puts_keys(request, maximum_ops):
        return
    _check_operations(request, maximum_ops)
    for branch in (request.success, request.failure):
        _Writes().add_branch(branch)


def _only_puts_keys(request: TxnRequest, budget: int) -> bool:
    """Whether it is certainly right: nothing but puts without doubtful options, each of another key.

    A load of many keys consists of these, and one look at each put is all it needs.
    """
    if len(request.compare) > budget or not all(compare.key for compare in request.compare):
        return False
    for branch in (request.success, request.failure):
        # Of any other kind of operation the put is one without a key.
        keys = {put.key for op in branch if not ((put := op.request_put).ignore_value or put.ignore_lease)}
        if not len(keys) == len(branch) <= budget or b"" in keys:
            return False
    return True


def _check_operations(request: TxnRequest, budget: int, depth: int = 1) -> None:
    if depth > MAXIMUM_TXN_DEPTH:
        raise etcd_errors.TXN_TOO_DEEP.error()
    used = max(len(request.compare), len(request.success), len(request.failure))
    if used > budget:
        raise etcd_errors.TOO_MANY_OPS.error()
    if not all(compare.key for compare in request.compare):
        raise etcd_errors.EMPTY_KEY.error()
    for branch in (request.success, request.failure):
        for op in branch:
            _check_operation(op, budget - used, depth)


def _check_operation(op: RequestOp, budget: int, depth: int) -> None:
    match op.WhichOneof("request"):
        case "request_range":
            check_range(op.request_range)
        case "request_put":
            check_put(op.request_put)
        case "request_delete_range":
            check_delete_range(op.request_delete_range)
        case "request_txn":
            _check_operations(op.request_txn, budget, depth + 1)
        case _:
            raise etcd_errors.KEY_NOT_FOUND.error()


class _Writes:
    """What one branch writes, with all that is nested in it.

    A key may be put once, and not at all where something is deleted; only one branch of a nested
    transaction is executed, so its two may put the same key. Two things pass, as they do in etcd, and
    clients may rely on them: a put before a delete of a later nested transaction, and a put beside
    a delete of all keys from one on (delete everything, then set this).
    """

    def __init__(self) -> None:
        self.puts: set[bytes] = set()
        self.deletes: list[tuple[bytes, bytes]] = []
        self._deleted_keys: set[bytes] = set()
        self._deleted_ranges: IntervalIndex[None] = IntervalIndex()

    def add_branch(self, branch: Iterable[RequestOp]) -> None:
        """Collect it, or refuse it."""
        puts: list[bytes] = []
        nested: list[TxnRequest] = []
        for op in branch:
            match op.WhichOneof("request"):
                case "request_put":
                    puts.append(op.request_put.key)
                case "request_delete_range":
                    self._add_delete(op.request_delete_range.key, op.request_delete_range.range_end)
                case "request_txn":
                    nested.append(op.request_txn)
        for request in nested:
            self._add_nested(request)
        keys = set(puts)
        if len(keys) < len(puts):
            raise etcd_errors.DUPLICATE_KEY.error()
        self._add_puts(keys)

    def _add_nested(self, request: TxnRequest) -> None:
        success, failure = _Writes(), _Writes()
        success.add_branch(request.success)
        failure.add_branch(request.failure)
        self._add_puts(success.puts | failure.puts)
        for key, range_end in success.deletes + failure.deletes:
            self._add_delete(key, range_end)

    def _add_delete(self, key: bytes, range_end: bytes) -> None:
        self.deletes.append((key, range_end))
        if not range_end:
            self._deleted_keys.add(key)
        elif range_end != layout.FROM_KEY:
            self._deleted_ranges.add(key, range_end, None)

    def _add_puts(self, keys: set[bytes]) -> None:
        if not self.puts.isdisjoint(keys) or not self._deleted_keys.isdisjoint(keys):
            raise etcd_errors.DUPLICATE_KEY.error()
        if self._deleted_ranges and any(self._deleted_ranges.stab(key) for key in keys):
            raise etcd_errors.DUPLICATE_KEY.error()
        self.puts |= keys
