"""Random requests over few keys, so that they meet."""

from typing import Any

from hypothesis import strategies as st

from connect_kv.errors import Refused
from connect_kv.kv import validation
from connect_kv.rpc.kv_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

LEASES = (11, 12)

keys = st.sampled_from([b"a", b"a\0", b"a\0\xff", b"b", b"c", b"\xff", b"\xff\xff"])
range_ends = st.sampled_from([b"", b"", b"", b"\0", b"a\0", b"b", b"c", b"d", b"\xff\xff"])
values = st.sampled_from([b"", b"1", b"2", b"3"])
leases = st.sampled_from([0, 0, 0, *LEASES, 99])
revisions = st.one_of(st.just(0), st.integers(-1, 40))


def puts() -> st.SearchStrategy[PutRequest]:
    def make(key: bytes, value: bytes, lease: int, prev_kv: bool, keep: int) -> PutRequest:
        request = PutRequest(key=key, prev_kv=prev_kv)
        if keep & 1:
            request.ignore_value = True
        else:
            request.value = value
        if keep & 2:
            request.ignore_lease = True
        else:
            request.lease = lease
        return request

    return st.builds(make, keys, values, leases, st.booleans(), st.sampled_from([0, 0, 0, 0, 1, 2, 3]))


def deletes() -> st.SearchStrategy[DeleteRangeRequest]:
    return st.builds(DeleteRangeRequest, key=keys, range_end=range_ends, prev_kv=st.booleans())


def ranges() -> st.SearchStrategy[RangeRequest]:
    bound = st.one_of(st.just(0), st.just(0), st.integers(1, 30))
    return st.builds(
        RangeRequest,
        key=keys,
        range_end=range_ends,
        limit=st.sampled_from([0, 0, 1, 2, 5]),
        revision=revisions,
        sort_order=st.sampled_from(RangeRequest.SortOrder.values()),
        sort_target=st.sampled_from([0, *RangeRequest.SortTarget.values()]),
        keys_only=st.booleans(),
        count_only=st.sampled_from([False, False, True]),
        min_mod_revision=bound,
        max_mod_revision=bound,
        min_create_revision=bound,
        max_create_revision=bound,
    )


def compares() -> st.SearchStrategy[Compare]:
    def make(target: int, result: int, key: bytes, range_end: bytes, number: int, value: bytes) -> Compare:
        choices: list[dict[str, Any]] = [
            {"version": number},
            {"create_revision": number},
            {"mod_revision": number},
            {"value": value},
            {"lease": number},
            {},
        ]
        given = choices[target if number != 3 else 5]
        return Compare(target=target, result=result, key=key, range_end=range_end, **given)  # type: ignore[arg-type]

    numbers = st.one_of(st.integers(0, 3), st.integers(0, 20), st.sampled_from(LEASES))
    return st.builds(make, st.integers(0, 4), st.integers(0, 3), keys, range_ends, numbers, values)


def _operations(nested: st.SearchStrategy[TxnRequest] | None) -> st.SearchStrategy[list[RequestOp]]:
    simple = st.one_of(
        st.builds(lambda request: RequestOp(request_put=request), puts()),
        st.builds(lambda request: RequestOp(request_delete_range=request), deletes()),
        st.builds(lambda request: RequestOp(request_range=request), ranges()),
    )
    if nested is not None:
        simple = st.one_of(simple, st.builds(lambda request: RequestOp(request_txn=request), nested))
    return st.lists(simple, max_size=3)


def _txns(nested: st.SearchStrategy[TxnRequest] | None) -> st.SearchStrategy[TxnRequest]:
    operations = _operations(nested)
    return st.builds(
        TxnRequest, compare=st.lists(compares(), max_size=2), success=operations, failure=operations
    )


def _valid(request: TxnRequest) -> bool:
    try:
        validation.check_txn(request)
    except Refused:
        return False
    return True


def txns() -> st.SearchStrategy[TxnRequest]:
    """Valid ones, nested up to three deep."""
    return _txns(_txns(_txns(None))).filter(_valid)
