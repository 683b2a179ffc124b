"""Requests that are wrong by themselves, with etcd's codes and texts."""

import pytest

from connect_kv.errors import Refused
from connect_kv.kv import validation
from connect_kv.rpc.command_pb2 import Command, CommandBatch
from connect_kv.rpc.kv_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest
from connect_kv.rpc.maintenance_pb2 import AlarmRequest
from tests.kv.conftest import delete_op, put_op, range_op, txn_op

INVALID_ARGUMENT, OUT_OF_RANGE, UNIMPLEMENTED = 3, 11, 12
DUPLICATE = "duplicate key given in txn request"
TOO_MANY = "too many operations in txn request"


def txn_command(**fields: object) -> Command:
    return Command(txn=TxnRequest(**fields))  # type: ignore[arg-type]


def range_command(**fields: object) -> Command:
    return Command(range=RangeRequest(key=b"a", **fields))  # type: ignore[arg-type]


def lease_command(ttl: int) -> Command:
    command = Command()
    command.lease_grant.TTL = ttl
    return command


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (Command(put=PutRequest()), INVALID_ARGUMENT, "key is not provided"),
        (Command(range=RangeRequest()), INVALID_ARGUMENT, "key is not provided"),
        (Command(delete_range=DeleteRangeRequest()), INVALID_ARGUMENT, "key is not provided"),
        (
            Command(put=PutRequest(key=b"a", value=b"v", ignore_value=True)),
            INVALID_ARGUMENT,
            "value is provided",
        ),
        (
            Command(put=PutRequest(key=b"a", lease=1, ignore_lease=True)),
            INVALID_ARGUMENT,
            "lease is provided",
        ),
        (range_command(sort_order=9), INVALID_ARGUMENT, "invalid sort option"),
        (range_command(sort_target=9), INVALID_ARGUMENT, "invalid sort option"),
        (lease_command(9_000_000_001), OUT_OF_RANGE, "too large lease TTL"),
        (txn_command(compare=[Compare()]), INVALID_ARGUMENT, "key is not provided"),
        (txn_command(success=[RequestOp()]), INVALID_ARGUMENT, "key not found"),
        (txn_command(failure=[put_op(b"")]), INVALID_ARGUMENT, "key is not provided"),
        (txn_command(success=[txn_op(failure=[range_op(b"")])]), INVALID_ARGUMENT, "key is not provided"),
        (txn_command(success=[range_op(b"a")] * 129), INVALID_ARGUMENT, TOO_MANY),
        (
            txn_command(success=[txn_op(success=[range_op(b"a")] * 128)]),
            INVALID_ARGUMENT,
            TOO_MANY,
        ),
        (txn_command(success=[put_op(b"a"), put_op(b"a")]), INVALID_ARGUMENT, DUPLICATE),
        (txn_command(success=[put_op(b"b"), delete_op(b"a", b"c")]), INVALID_ARGUMENT, DUPLICATE),
        (
            txn_command(failure=[put_op(b"a"), txn_op(success=[txn_op(failure=[delete_op(b"a")])])]),
            INVALID_ARGUMENT,
            DUPLICATE,
        ),
        (
            txn_command(success=[txn_op(success=[delete_op(b"a")]), txn_op(success=[put_op(b"a")])]),
            INVALID_ARGUMENT,
            DUPLICATE,
        ),
        (
            txn_command(success=[txn_op(success=[put_op(b"a")]), txn_op(failure=[put_op(b"a")])]),
            INVALID_ARGUMENT,
            DUPLICATE,
        ),
    ],
)
def test_refused(command: Command, code: int, text: str) -> None:
    with pytest.raises(Refused) as refused:
        validation.check_command(command)
    assert (refused.value.code, refused.value.message) == (code, f"etcdserver: {text}")


@pytest.mark.parametrize(
    "request_",
    [
        TxnRequest(success=[range_op(b"a")] * 128),
        TxnRequest(success=[txn_op(success=[range_op(b"a")] * 127)]),
        TxnRequest(success=[txn_op(success=[put_op(b"a")], failure=[put_op(b"a")])]),
        TxnRequest(success=[put_op(b"a")], failure=[put_op(b"a")]),
        TxnRequest(success=[delete_op(b"a", b"c"), delete_op(b"b", b"d")]),
        TxnRequest(success=[put_op(b"c"), delete_op(b"a", b"c")]),
        TxnRequest(success=[delete_op(b"\0", b"\0"), put_op(b"a")]),
        TxnRequest(success=[delete_op(b"b", b"\0"), put_op(b"a", ignore_value=True)]),
        TxnRequest(success=[txn_op(success=[put_op(b"a")]), txn_op(success=[delete_op(b"a")])]),
    ],
)
def test_allowed(request_: TxnRequest) -> None:
    validation.check_txn(request_)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            RangeRequest(key=b"a", sort_order=RangeRequest.DESCEND),
            "RangeStream does not support custom sort orders",
        ),
        (
            RangeRequest(key=b"a", sort_order=RangeRequest.ASCEND, sort_target=RangeRequest.MOD),
            "RangeStream does not support custom sort orders",
        ),
        (RangeRequest(key=b"a", min_mod_revision=1), "RangeStream does not support revision filters"),
    ],
)
def test_a_stream_of_a_range_has_the_order_of_the_keys_and_no_filters(
    request_: RangeRequest, text: str
) -> None:
    with pytest.raises(Refused) as refused:
        validation.check_range_stream(request_)
    assert (refused.value.code, refused.value.message) == (UNIMPLEMENTED, text)


@pytest.mark.parametrize(
    "request_",
    [
        RangeRequest(key=b"a", sort_order=RangeRequest.ASCEND),
        RangeRequest(key=b"a", sort_target=RangeRequest.VALUE),
    ],
)
def test_a_stream_of_a_range_takes_what_etcd_takes(request_: RangeRequest) -> None:
    validation.check_range_stream(request_)


def test_many_deletes_and_puts_are_checked_in_reasonable_time() -> None:
    deletes = [[delete_op(b"%d-%d" % (a, b), b"%d-%d~" % (a, b)) for b in range(60)] for a in range(32)]
    puts = [[put_op(b"x%d-%d" % (a, b)) for b in range(60)] for a in range(32)]
    validation.check_txn(TxnRequest(success=[txn_op(success=branch) for branch in deletes + puts]))


def test_transactions_nested_so_deeply_that_members_could_not_read_them_are_refused() -> None:
    """Protobuf reads a hundred messages within each other: as a request alone, but not in a batch of them."""
    request = TxnRequest()
    for _ in range(validation.MAXIMUM_TXN_DEPTH - 1):
        request = TxnRequest(success=[RequestOp(request_txn=request)])
    validation.check_txn(request)
    assert CommandBatch.FromString(CommandBatch(commands=[Command(txn=request)]).SerializeToString())
    with pytest.raises(Refused, match="nested too deeply"):
        validation.check_txn(TxnRequest(success=[RequestOp(request_txn=request)]))


@pytest.mark.parametrize(
    "request_", [{"alarm": -1, "action": 1}, {"alarm": 3}, {"action": 3}, {"action": -1}]
)
def test_an_alarm_nobody_knows_is_refused(request_: dict[str, int]) -> None:
    """Its number could not be stored: applying it would stop every member."""
    with pytest.raises(Refused, match="unknown alarm"):
        validation.check_command(Command(alarm=AlarmRequest(**request_)))  # type: ignore[arg-type]
