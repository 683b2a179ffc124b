"""What a command of a user machine came to, as it is stored and sent."""

from __future__ import annotations

from functools import lru_cache

from connect_kv.errors import CommandFailed
from connect_kv.protowire import tag, varint
from connect_kv.rpc.command_pb2 import Failure, MachineReply, Result
from connect_kv.statemachine.hosted import Rejected
from connect_kv.statemachine.user_machines import AnyOutcome, Passed

_INVALID_ARGUMENT = 3
_ABORTED = 10
_UNAVAILABLE = 14
_NUMBER = varint(Result.NUMBER_FIELD_NUMBER << 3)
_REPLY = tag(Result.MACHINE_CALL_FIELD_NUMBER)
_VALUE = tag(MachineReply.VALUE_FIELD_NUMBER)


def encoded_result(outcome: AnyOutcome, number: int) -> bytes:
    """What a machine returned or raised, as an encoded Result."""
    if isinstance(
        outcome, bytes
    ):  # every member does this for every call: the same bytes, without the messages
        head = _reply_head(len(outcome))
        return b"".join((_NUMBER, varint(number), head, outcome)) if number else head + outcome
    return Result(number=number, failure=_failure(outcome)).SerializeToString()


@lru_cache(4096)
def _reply_head(size: int) -> bytes:
    """What stands between the number and a value of that many bytes."""
    value = _VALUE + varint(size) if size else b""
    return _REPLY + varint(len(value) + size) + value


def _failure(outcome: AnyOutcome) -> Failure:
    if isinstance(outcome, Passed):
        return Failure(code=_UNAVAILABLE, message=outcome.reason)
    if isinstance(outcome, CommandFailed):
        return Failure(code=_ABORTED, message=outcome.message, type=outcome.type, details=outcome.details)
    assert isinstance(outcome, Rejected)
    return Failure(code=_INVALID_ARGUMENT, message=outcome.reason)
