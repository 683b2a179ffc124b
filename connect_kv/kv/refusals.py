"""Why a request of the key/value API is refused: gRPC status numbers with etcd's literal texts."""

from __future__ import annotations

from typing import NamedTuple

from connect_kv.errors import Refused
from connect_kv.rpc.command_pb2 import Failure, Result

INVALID_ARGUMENT = 3
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
DATA_LOSS = 15


class Refusal(NamedTuple):
    """One reason: what the caller gets as status and text."""

    code: int
    message: str

    def error(self, why: str = "") -> Refused:
        """To raise, before anything was proposed; `why` is said after the text."""
        return Refused(self.code, f"{self.message}: {why}" if why else self.message)

    def result(self) -> Result:
        """To return from apply: a refusal is a result like any other."""
        return Result(failure=Failure(code=self.code, message=self.message))


EMPTY_KEY = Refusal(INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = Refusal(INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = Refusal(INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = Refusal(INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS = Refusal(INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
TXN_TOO_DEEP = Refusal(INVALID_ARGUMENT, "connect-kv: transactions are nested too deeply")
UNKNOWN_ALARM = Refusal(INVALID_ARGUMENT, "connect-kv: unknown alarm")
DUPLICATE_KEY = Refusal(INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_SORT = Refusal(INVALID_ARGUMENT, "etcdserver: invalid sort option")
TOO_LARGE = Refusal(INVALID_ARGUMENT, "etcdserver: request is too large")
COMPACTED = Refusal(OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION = Refusal(OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
NO_SPACE = Refusal(RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
CORRUPT = Refusal(DATA_LOSS, "etcdserver: corrupt cluster")
LEASE_NOT_FOUND = Refusal(NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = Refusal(FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = Refusal(OUT_OF_RANGE, "etcdserver: too large lease TTL")
STREAM_SORT = Refusal(UNIMPLEMENTED, "RangeStream does not support custom sort orders")
STREAM_FILTERS = Refusal(UNIMPLEMENTED, "RangeStream does not support revision filters")
