"""gRPC statuses and replicated failures back into `connect_kv.errors`: one table for both."""

from __future__ import annotations

import enum
import re
from base64 import b64decode
from collections.abc import Mapping

from connect_kv import errors
from connect_kv.rpc.command_pb2 import Failure

CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

NO_LEADER = "etcdserver: no leader"
CANNOT_LOG_IN = "cannot log in: "
"""Before the reason: the call itself was not sent."""
LOGGED_OUT = "the token is no longer known"
"""This side's word for a stream that a new login makes good."""
NOT_CARRIED_OUT = frozenset(
    {
        NO_LEADER,
        "etcdserver: not leader",
        "etcdserver: leader changed",
        "etcdserver: too many requests",
        "etcdserver: rpc not supported for learner",
        LOGGED_OUT,
    }
)
"""Texts with which a member says that nothing was, or will be, replicated for this call."""
NEVER_SENT = re.compile(
    r"failed to connect to (all|remote)|connection refused|dns resolution failed|errors? resolving", re.I
)
"""How the gRPC library words that there was no connection to send the call on."""
SUSPENDED = re.compile(r"^connect-kv: machine '.*' (is suspended on this member|has not begun)")
"""A machine does not go on on the member that was asked. Nothing was proposed, and others may have it."""
LOST = re.compile(r"timed out|stream removed", re.I)
"""With status UNKNOWN: nothing that the cluster has answered."""
NO_SUCH_METHOD = "Method not found!"
"""How gRPC servers word that they do not serve this at all."""
SESSION_EXPIRED = "SessionExpired"
"""`Failure.type` of a command whose session is gone."""


class CallFailed(Exception):
    """A call on a member ended with a status other than OK, or a stream ended at all."""

    def __init__(self, code: int, text: str, beside: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        """What the member, or the gRPC library, says of it; may be empty."""
        self.beside: Mapping[str, str] = beside or {}
        """Trailing metadata."""


class EndedHere(CallFailed):
    """The call was ended on this side, by another task."""

    def __init__(self) -> None:
        super().__init__(CANCELLED, "the call was ended on this side")


class Fate(enum.Enum):
    """What a failed call tells of its effect."""

    REFUSED = enum.auto()
    """An answer: it had none, and asking again gives the same answer."""
    NOTHING_DONE = enum.auto()
    """Certainly none; another member, or this one later, may do it."""
    UNKNOWN = enum.auto()
    """It may have happened, or happen yet."""


def fate(code: int, text: str) -> Fate:
    """Whether a call that failed so took effect."""
    if text in NOT_CARRIED_OUT or SUSPENDED.match(text) or text.startswith((f"{NO_LEADER}: ", CANNOT_LOG_IN)):
        return Fate.NOTHING_DONE
    if code == UNAVAILABLE:
        return Fate.NOTHING_DONE if NEVER_SENT.search(text) else Fate.UNKNOWN
    if code in (CANCELLED, DEADLINE_EXCEEDED, INTERNAL) or (code == UNKNOWN and LOST.search(text)):
        return Fate.UNKNOWN
    return Fate.REFUSED


def refusal(code: int, text: str, type: str = "", details: bytes = b"") -> errors.ConnectKvError:
    """The error for an answer that is final (`Fate.REFUSED`)."""
    if type == SESSION_EXPIRED:
        return errors.SessionExpired(text)
    if type:
        return errors.CommandFailed(type, text, details)
    if code == OUT_OF_RANGE and "compacted" in text:
        return errors.Compacted(text)
    if text == "etcdserver: request is too large" or "message larger than max" in text:
        return errors.RequestTooLarge(text)
    return errors.Refused(code, text)


def failure(result: Failure) -> errors.ConnectKvError:
    """The error for a command's replicated refusal."""
    return refusal(result.code, result.message, result.type, result.details)


def from_rpc(error: CallFailed, *, writes: bool) -> errors.ConnectKvError:
    """The error for a call that will not be tried again; `writes`: it could have changed something."""
    code, text = error.code, error.text or f"status {error.code}"
    match fate(code, text):
        case Fate.REFUSED:
            kind = type_of(error)
            if error.beside.get("connect-kv-error") == errors.BadCall.__name__:
                return errors.BadCall(text)
            held = error.beside.get("connect-kv-error-details", "")
            return refusal(code, text.removeprefix(f"{kind}: "), kind, b64decode(held))
        case Fate.UNKNOWN if writes:
            return errors.OutcomeUnknown(text)
        case _:
            return errors.Unavailable(readable(text))


def readable(text: str) -> str:
    """The reason at the end of the library's long account of a failed connection."""
    return f"cannot connect: {text.rpartition(': ')[2].rstrip(']')}" if NEVER_SENT.search(text) else text


def type_of(error: CallFailed) -> str:
    """The class of a machine's own exception, or SESSION_EXPIRED: it travels beside the status."""
    return error.beside.get("connect-kv-error-type", "")
