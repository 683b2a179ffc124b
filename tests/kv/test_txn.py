"""Transactions: what compares mean, what inner operations see, and what is checked before."""

import pytest

from connect_kv.rpc.kv_pb2 import Compare, TxnRequest
from tests.kv.conftest import Kv, delete_op, put_op, range_op, txn_op

EQUAL, GREATER, LESS, NOT_EQUAL = Compare.EQUAL, Compare.GREATER, Compare.LESS, Compare.NOT_EQUAL


def compare(
    target: str,
    result: Compare.CompareResult.ValueType,
    given: int | bytes | None,
    key: bytes = b"a",
    range_end: bytes = b"",
) -> Compare:
    number = Compare.CompareTarget.Value(target)
    made = Compare(target=number, result=result, key=key, range_end=range_end)
    if given is not None:
        name = {"CREATE": "create_revision", "MOD": "mod_revision"}.get(target, target.lower())
        setattr(made, name, given)
    return made


@pytest.fixture
def kv(kv: Kv) -> Kv:
    """``a`` created at 2, changed at 3 (version 2, value m, lease 7); ``b`` at 4."""
    kv.grant(7)
    kv.put(b"a", b"first")
    kv.put(b"a", b"m", lease=7)
    kv.put(b"b", b"n")
    return kv


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (compare("VERSION", EQUAL, 2), True),
        (compare("VERSION", GREATER, 1), True),
        (compare("VERSION", GREATER, 2), False),
        (compare("VERSION", LESS, 3), True),
        (compare("VERSION", NOT_EQUAL, 2), False),
        (compare("CREATE", EQUAL, 2), True),
        (compare("MOD", EQUAL, 3), True),
        (compare("MOD", LESS, 3), False),
        (compare("VALUE", EQUAL, b"m"), True),
        (compare("VALUE", GREATER, b"l"), True),
        (compare("VALUE", LESS, b"ma"), True),
        (compare("LEASE", EQUAL, 7), True),
        (compare("LEASE", NOT_EQUAL, 7), False),
        (compare("VERSION", EQUAL, 0, key=b"missing"), True),
        (compare("CREATE", EQUAL, 0, key=b"missing"), True),
        (compare("MOD", LESS, 1, key=b"missing"), True),
        (compare("LEASE", EQUAL, 0, key=b"missing"), True),
        (compare("VALUE", EQUAL, b"", key=b"missing"), False),
        (compare("VALUE", NOT_EQUAL, b"x", key=b"missing"), False),
        (compare("VALUE", LESS, b"x", key=b"missing"), False),
        (compare("VALUE", NOT_EQUAL, b"x", key=b"p", range_end=b"q"), False),
        (compare("VERSION", GREATER, 0, range_end=b"c"), True),
        (compare("VERSION", GREATER, 1, range_end=b"c"), False),
        (compare("MOD", LESS, 5, range_end=b"\0"), True),
        (compare("VALUE", GREATER, None), True),
        (compare("VERSION", EQUAL, None), False),
        (compare("VERSION", EQUAL, None, key=b"missing"), True),
    ],
    ids=str,
)
def test_compare(kv: Kv, condition: Compare, holds: bool) -> None:
    result = kv.txn(TxnRequest(compare=[condition], success=[put_op(b"x")], failure=[put_op(b"x")]))
    assert result.txn.succeeded is holds


def test_an_empty_list_of_compares_holds_and_a_conjunction_needs_all(kv: Kv) -> None:
    assert kv.txn(TxnRequest(success=[put_op(b"x")])).txn.succeeded
    both = [compare("VERSION", EQUAL, 2), compare("VERSION", EQUAL, 3)]
    assert not kv.txn(TxnRequest(compare=both, failure=[put_op(b"x")])).txn.succeeded


def test_all_changes_share_one_revision_and_inner_headers_show_it(kv: Kv) -> None:
    operations = [range_op(b"a"), put_op(b"x", b"1"), range_op(b"x"), delete_op(b"nothing"), delete_op(b"b")]
    answer = kv.txn(TxnRequest(success=operations)).txn
    before, put, after, nothing, deleted = answer.responses
    assert answer.header.revision == 5
    assert before.response_range.header.revision == 4
    assert put.response_put.header.revision == 5
    assert after.response_range.header.revision == 5
    assert after.response_range.kvs[0].mod_revision == 5
    assert nothing.response_delete_range.header.revision == 5
    assert deleted.response_delete_range.header.revision == 5


def test_a_transaction_without_effect_makes_no_revision(kv: Kv) -> None:
    answer = kv.txn(TxnRequest(success=[delete_op(b"nothing"), txn_op(success=[range_op(b"a")])])).txn
    assert answer.header.revision == 4
    assert answer.responses[1].response_txn.HasField("header")
    assert answer.responses[1].response_txn.header.revision == 0


def test_nested_compares_see_the_state_before_the_outer_transaction(kv: Kv) -> None:
    absent = compare("VERSION", EQUAL, 0, key=b"x")
    nested = txn_op(
        compare=[absent], success=[put_op(b"y", b"was absent")], failure=[put_op(b"y", b"was there")]
    )
    kv.txn(TxnRequest(success=[nested, put_op(b"x")]))
    answer = kv.txn(TxnRequest(success=[range_op(b"y")])).txn
    assert answer.responses[0].response_range.kvs[0].value == b"was absent"


def test_a_compare_of_a_branch_not_taken_is_not_looked_at(kv: Kv) -> None:
    unreachable = txn_op(success=[put_op(b"z", lease=999)])
    answer = kv.txn(TxnRequest(success=[put_op(b"x")], failure=[unreachable]))
    assert not answer.HasField("failure")


@pytest.mark.parametrize(
    ("operation", "code", "text"),
    [
        (put_op(b"x", lease=999), 5, "etcdserver: requested lease not found"),
        (put_op(b"missing", ignore_value=True), 3, "etcdserver: key not found"),
        (put_op(b"missing", b"v", ignore_lease=True), 3, "etcdserver: key not found"),
        (range_op(b"a", revision=5), 11, "etcdserver: mvcc: required revision is a future revision"),
        (range_op(b"a", revision=1), 11, "etcdserver: mvcc: required revision has been compacted"),
    ],
    ids=["lease", "ignore_value", "ignore_lease", "future", "compacted"],
)
async def test_what_would_fail_fails_the_whole_before_anything_is_written(
    kv: Kv, operation: object, code: int, text: str
) -> None:
    kv.compact(2)
    nested = txn_op(success=[operation])
    result = kv.txn(TxnRequest(success=[put_op(b"written"), nested]))
    assert (result.failure.code, result.failure.message) == (code, text)
    assert (await kv.get(b"written")).count == 0
    assert (await kv.get(b"written")).header.revision == 4


LEASE = (5, "etcdserver: requested lease not found")
KEPT = (3, "etcdserver: key not found")
COMPACTED = (11, "etcdserver: mvcc: required revision has been compacted")
FUTURE = (11, "etcdserver: mvcc: required revision is a future revision")


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize(
    ("first", "second"),
    [(LEASE, COMPACTED), (COMPACTED, LEASE), (FUTURE, KEPT), (KEPT, FUTURE), (LEASE, KEPT), (KEPT, LEASE)],
    ids=lambda refusal: refusal[1].rsplit(" ", 1)[-1],
)
def test_of_several_operations_that_fail_the_first_is_told(
    kv: Kv, nested: bool, first: tuple[int, str], second: tuple[int, str]
) -> None:
    """In the order of writing, nested ones where they stand."""
    kv.compact(2)
    failing = {
        LEASE: put_op(b"x", lease=999),
        KEPT: put_op(b"missing", ignore_value=True),
        COMPACTED: range_op(b"a", revision=1),
        FUTURE: range_op(b"a", revision=50),
    }
    one, other = failing[first], failing[second]
    operations = [put_op(b"y"), txn_op(success=[one]) if nested else one, other]
    result = kv.txn(TxnRequest(success=operations))
    assert (result.failure.code, result.failure.message) == first


def test_a_key_created_earlier_in_the_transaction_does_not_count_as_existing(kv: Kv) -> None:
    later = txn_op(failure=[put_op(b"new", ignore_value=True)], compare=[compare("VERSION", EQUAL, 9)])
    assert kv.txn(TxnRequest(success=[put_op(b"new"), later])).failure.message == "etcdserver: key not found"


async def test_an_inner_range_of_the_past_does_not_see_the_transaction(kv: Kv) -> None:
    answer = kv.txn(
        TxnRequest(success=[put_op(b"a", b"new"), range_op(b"a", revision=4), range_op(b"a")])
    ).txn
    assert answer.responses[1].response_range.kvs[0].value == b"m"
    assert answer.responses[2].response_range.kvs[0].value == b"new"


async def test_a_put_deleted_in_the_same_transaction_is_two_changes_of_one_revision(kv: Kv) -> None:
    kv.txn(TxnRequest(success=[txn_op(success=[put_op(b"a", b"1")]), txn_op(success=[delete_op(b"a")])]))
    assert (await kv.get(b"a")).count == 0
    assert (await kv.get(b"a", revision=5)).count == 0
    assert (await kv.get(b"a", revision=4)).count == 1


async def test_everything_can_be_deleted_and_something_set_at_once(kv: Kv) -> None:
    answer = kv.txn(TxnRequest(success=[delete_op(b"\0", b"\0"), put_op(b"b", b"only")])).txn
    assert answer.responses[0].response_delete_range.deleted == 2
    (only,) = (await kv.get(b"\0", b"\0")).kvs
    assert (only.key, only.create_revision, only.mod_revision, only.version) == (b"b", 5, 5, 1)


def test_what_was_just_deleted_cannot_be_kept(kv: Kv) -> None:
    keeping = put_op(b"b", ignore_value=True)
    everything = delete_op(b"\0", b"\0")
    refused = kv.txn(TxnRequest(success=[everything, keeping]))
    assert refused.failure.message == "etcdserver: key not found"
    assert not kv.txn(TxnRequest(success=[keeping, everything])).HasField("failure")
