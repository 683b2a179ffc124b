"""The commonest read, one key as it is now: answered from the record as it lies on disk."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

from connect_kv import protowire
from connect_kv.kv import wire
from connect_kv.kv.layout import CURRENT
from connect_kv.kv.read_transactions import ReadTransaction
from connect_kv.rpc.kv_pb2 import RangeRequest, RangeResponse, ResponseHeader

_COUNT_ONE = RangeResponse(count=1).SerializeToString()
_GROUP = 8
"""Keys that are read at a time."""
_SERIALIZABLE = len(RangeRequest(serializable=True).SerializeToString())


def is_plain(request: RangeRequest) -> bool:
    """Whether it asks for one key as it is now, whole.

    Then there is nothing in its encoding but the key: one look instead of one at each field.
    """
    size = len(request.key)
    rest = request.ByteSize() - size - (_SERIALIZABLE if request.serializable else 0)
    return rest == (2 if size < 0x80 else 1 + len(protowire.varint(size))) and size > 0


def answers(
    transaction: ReadTransaction,
    keys: Sequence[bytes],
    header: ResponseHeader | None = None,
    most: int | None = None,
) -> Iterator[bytes]:
    """For each key an encoded RangeResponse; all of one state. After `most` bytes no more are begun."""
    full = ResponseHeader(revision=transaction.state.revision)
    if header is not None:
        full.MergeFrom(header)
    head = RangeResponse(header=full).SerializeToString()
    step, left = (_GROUP, most) if most is not None else (len(keys) or 1, math.inf)
    for start in range(0, len(keys), step):
        for record in transaction.view.gets([CURRENT + key for key in keys[start : start + step]]):
            if record is None:
                yield head
            else:
                left -= len(record)
                yield head + _record_head(len(record)) + record + _COUNT_ONE
            if left < 0:
                return


@lru_cache(4096)
def _record_head(size: int) -> bytes:
    """What stands before a record of that many bytes."""
    return wire.RANGE_KVS + protowire.varint(size)
