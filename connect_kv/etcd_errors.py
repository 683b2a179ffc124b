"""Why a request is refused: gRPC status codes with the texts that etcd's clients compare letter by letter."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from connect_kv.errors import Refused
from connect_kv.rpc.command_pb2 import Failure, Result


class Code(IntEnum):
    """The status codes of gRPC (its "Status codes and their use in gRPC")."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Refusal(NamedTuple):
    """One reason: what the caller gets as status and text."""

    code: Code
    message: str

    def error(self, why: str = "") -> Refused:
        """To raise, before anything was proposed; `why` is said after the text."""
        return Refused(self.code, f"{self.message}: {why}" if why else self.message)

    def result(self) -> Result:
        """To return from apply: a refusal is a result like any other."""
        return Result(failure=Failure(code=self.code, message=self.message))


EMPTY_KEY = Refusal(Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND = Refusal(Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED = Refusal(Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED = Refusal(Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPS = Refusal(Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request")
TXN_TOO_DEEP = Refusal(Code.INVALID_ARGUMENT, "connect-kv: transactions are nested too deeply")
UNKNOWN_ALARM = Refusal(Code.INVALID_ARGUMENT, "connect-kv: unknown alarm")
DUPLICATE_KEY = Refusal(Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request")
INVALID_SORT = Refusal(Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
COMPACTED = Refusal(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION = Refusal(Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")
NO_SPACE = Refusal(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
CORRUPT = Refusal(Code.DATA_LOSS, "etcdserver: corrupt cluster")
LEASE_NOT_FOUND = Refusal(Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL_TOO_LARGE = Refusal(Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
STREAM_SORT = Refusal(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
STREAM_FILTERS = Refusal(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")
