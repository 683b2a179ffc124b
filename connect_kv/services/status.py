"""Errors to gRPC statuses: one table, with the texts etcd clients compare letter by letter."""

from __future__ import annotations

import logging
from base64 import b64encode
from dataclasses import dataclass
from typing import NoReturn

from connect_kv import errors
from connect_kv.etcd_errors import Code
from connect_kv.rpc.command_pb2 import Failure, Result
from connect_kv.services.machine_calls import NoSuchMethod
from connect_kv.trailers import MOST_DETAILS, MOST_NAME

logger = logging.getLogger(__name__)

ERROR_KEY = "connect-kv-error"
"""Trailing metadata: which class of `connect_kv.errors` this was."""
TYPE_KEY = "connect-kv-error-type"
"""Trailing metadata of a machine's own exception: its class name, which also heads the text.
SessionExpired travels the same way, so that a client can tell it from other refusals."""

UNEXPECTED = "connect-kv: internal error, described in the log of this member"
"""What a caller is told of an exception that nobody thought of."""
_NO_LEADER = "etcdserver: no leader"
DETAILS_KEY = "connect-kv-error-details"
"""Trailing metadata: what a declared exception of a machine holds, as base64. Of one that holds more than
`trailers.MOST_DETAILS`, the caller gets CommandFailed. Sessions have no limit."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a caller is told."""

    code: Code
    text: str
    trailing: tuple[tuple[str, str], ...] = ()
    expected: bool = True
    """False: nobody thought of this error; it belongs in the log with its traceback."""


_TABLE: dict[type[BaseException], tuple[Code, str]] = {
    errors.NoLeader: (Code.UNAVAILABLE, _NO_LEADER),
    errors.NotProposed: (Code.UNAVAILABLE, "etcdserver: leader changed"),
    errors.OutcomeUnknown: (
        Code.UNAVAILABLE,
        "etcdserver: request timed out, its outcome is unknown: it may still take effect",
    ),
    errors.NodeStopped: (Code.UNAVAILABLE, "etcdserver: server stopped"),
    errors.MemberRemoved: (Code.UNAVAILABLE, "etcdserver: server stopped"),
    errors.StorageError: (Code.UNAVAILABLE, "etcdserver: server stopped"),
    errors.UnknownEntry: (Code.UNAVAILABLE, "etcdserver: server stopped"),
    errors.Overloaded: (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests"),
    errors.RequestTooLarge: (Code.INVALID_ARGUMENT, "etcdserver: request is too large"),
    errors.NotLeader: (Code.FAILED_PRECONDITION, "etcdserver: not leader"),
    TimeoutError: (Code.UNAVAILABLE, "etcdserver: request timed out"),
}
"""Errors whose text is fixed. The other classes speak for themselves, below."""

_WITH_REASON = (errors.NoLeader, errors.OutcomeUnknown, errors.TimedOut)
"""Errors that may say why after their fixed text: who gives up waiting should know what to mend."""

_OWN_TEXT: dict[type[BaseException], Code] = {
    errors.SessionExpired: Code.FAILED_PRECONDITION,
    errors.MachineSuspended: Code.UNAVAILABLE,
    errors.CommandFailed: Code.ABORTED,
    NoSuchMethod: Code.NOT_FOUND,
    errors.BadCall: Code.INVALID_ARGUMENT,
    errors.MembershipRefused: Code.FAILED_PRECONDITION,
    NotImplementedError: Code.UNIMPLEMENTED,
}


def status_of(error: BaseException) -> Status:
    """The status for any exception. One that nobody thought of is UNKNOWN, as in etcd; its class and text are
    for the log of this member, not for the caller.
    """
    if isinstance(error, errors.Refused):
        return Status(_code_of(error.code), error.message)
    for kind in type(error).__mro__:
        if (fixed := _TABLE.get(kind)) is not None:
            return Status(fixed[0], _with_reason(fixed[1], error), trailing=_trailing(error))
        if (code := _OWN_TEXT.get(kind)) is not None:
            return Status(code, str(error), trailing=_trailing(error))
    return Status(Code.UNKNOWN, UNEXPECTED, expected=False)


def _code_of(number: int) -> Code:
    try:
        return Code(number)
    except ValueError:
        return Code.UNKNOWN


def _with_reason(text: str, error: BaseException) -> str:
    why = str(error) if isinstance(error, _WITH_REASON) else ""
    if why.startswith(text):
        return why  # another member's answer, handed on
    why = why.removeprefix("no leader: ") if text == _NO_LEADER else why
    return f"{text}: {why}" if why else text


def _trailing(error: BaseException) -> tuple[tuple[str, str], ...]:
    public = next((kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__), None)
    named: tuple[tuple[str, str], ...] = () if public is None else ((ERROR_KEY, public.__name__),)
    kind = _type_of(error)
    if kind:
        named = (*named, (TYPE_KEY, kind.encode("ascii", "backslashreplace").decode()[:MOST_NAME]))
    if (details := _details_of(error)) and len(details) <= MOST_DETAILS:
        named = (*named, (DETAILS_KEY, b64encode(details).decode()))
    return named


def _type_of(error: BaseException) -> str:
    if isinstance(error, errors.CommandFailed):
        return error.type
    return type(error).__name__ if isinstance(error, errors.SessionExpired) else ""


def _details_of(error: BaseException) -> bytes:
    return error.details if isinstance(error, errors.CommandFailed) else b""


def failure_of(error: BaseException) -> Failure:
    """What it says, as a message, for one result within a session stream; logs what nobody thought of."""
    status = status_of(error)
    if not status.expected:
        logger.error("call failed", exc_info=error)
    text = error.message if isinstance(error, errors.CommandFailed) else status.text
    return Failure(code=status.code, message=text, type=_type_of(error), details=_details_of(error))


def raise_failure(result: Result) -> NoReturn:
    """Raise what a replicated result says was refused or failed."""
    failure = result.failure
    if failure.type == errors.SessionExpired.__name__:
        raise errors.SessionExpired(failure.message)
    if failure.type:
        raise errors.CommandFailed(failure.type, failure.message, failure.details)
    raise errors.Refused(failure.code, failure.message)
