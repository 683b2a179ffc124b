"""The audit log: who asked for what, from where, and what came of it. One line of JSON for a call.

It shows fields that are named here and no others, so that a value, a password, a token or an argument of a
machine can never be in it, of whatever request it will be a part one day.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from connect_kv.auth.authorization import FOREIGN_SESSION, PERMISSION_DENIED, REVISION_OLD
from connect_kv.auth.table import NO_USER_NAME, USER_NOT_FOUND
from connect_kv.auth.tokens import INVALID_TOKEN
from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.services.caller import Caller
from connect_kv.services.limits import LimitCounts, LimitedPeer, LimitNotice, is_limit
from connect_kv.services.status import status_of


class Level(IntEnum):
    """What is in it; each holds all before it."""

    AUTH = 0
    """Logins, whatever changes users, members or the member itself, copies of all data, and every refusal of
    a right."""
    WRITES = 1
    """Whatever changes keys, leases, locks and machines."""
    READS = 2
    """Every call that the other levels leave out."""


_LEVELS: Mapping[str, Level] = {
    **dict.fromkeys(
        ("KV.Put", "KV.DeleteRange", "KV.Txn", "KV.Compact", "Lease.LeaseGrant", "Lease.LeaseRevoke"),
        Level.WRITES,
    ),
    **dict.fromkeys(("Lock.Lock", "Lock.Unlock", "Machine.Call"), Level.WRITES),
    **dict.fromkeys(("Election.Campaign", "Election.Proclaim", "Election.Resign"), Level.WRITES),
    **dict.fromkeys(
        (
            "KV.Range", "KV.RangeStream", "Watch.Watch", "Lease.LeaseKeepAlive", "Lease.LeaseTimeToLive",
            "Lease.LeaseLeases", "Cluster.MemberList", "Maintenance.Status", "Maintenance.Hash",
            "Maintenance.HashKV", "Election.Leader", "Election.Observe", "Machine.Describe", "Machine.Status",
            "Session.Open", "Auth.AuthStatus", "Auth.UserGet", "Auth.UserList", "Auth.RoleGet",
            "Auth.RoleList", "Health.Check", "Health.List", "Health.Watch",
            "ServerReflection.ServerReflectionInfo",
        ),
        Level.READS,
    ),
}  # fmt: skip
"""Of what is not named here, new methods for one, every call is written down."""

_SESSION_READS = frozenset(
    ("range", "lease_renew", "lease_time_to_live", "lease_leases", "machine_query", "session_close")
)

RIGHTS = frozenset(
    one.message
    for one in (PERMISSION_DENIED, NO_USER_NAME, USER_NOT_FOUND, INVALID_TOKEN, REVISION_OLD, FOREIGN_SESSION)
)
"""The texts of a refused right, whatever code they travel with."""

SHOWN = frozenset(
    (
        # which key, lease, machine, member
        "key", "range_end", "lease", "ID", "id", "machine", "method", "revision", "physical", "memberID",
        "alarm", "action", "targetID", "peerURLs", "isLearner", "TTL", "ttl", "rev", "version",
        # which user, role, lock
        "name", "user", "role", "permType", "no_password",
        # how
        "prev_kv", "ignore_value", "ignore_lease", "count_only", "keys_only", "limit", "serializable",
        "start_revision", "target", "result", "decision",
        # what holds such fields
        "perm", "options", "compare", "success", "failure", "request_range", "request_put",
        "request_delete_range", "request_txn", "create_request", "cancel_request", "leader", "watch_id",
        "put", "range", "delete_range", "txn", "compact", "lease_grant", "lease_revoke", "lease_renew",
        "lease_time_to_live", "machine_call", "machine_query", "ids",
    )
)  # fmt: skip
"""Names of fields that may be written down."""
MOST_TEXT = 256
"""Bytes of a field that are shown."""
MOST_ITEMS = 32
"""Items of a list that are shown."""
_DEPTH = 6


class Trail(Protocol):
    """Where lines go. It never waits and never raises."""

    def write(self, line: bytes, *, important: bool) -> None:
        """One line, its end with it. `important` ones are the last to be given up when there is no room."""


class Audit:
    """Writes down calls of one member. Methods neither wait nor raise."""

    def __init__(
        self,
        trail: Trail,
        *,
        level: Level,
        node: str,
        wall: Callable[[], int],
        enabled: Callable[[], bool],
        user_of: Callable[[Caller], str],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`wall`: nanoseconds since 1970. `user_of` names the caller, without judging; empty: nobody known.
        `enabled`: whether anybody is asked who they are. `later` calls something after so many seconds.
        """
        self._limits = LimitCounts(self._told, later)
        self._trail = trail
        self._level = level
        self._node = node
        self._wall = wall
        self._enabled = enabled
        self._user_of = user_of

    def wants(self, call: str) -> bool:
        """Whether all calls of that method, ``Service.Method``, are written down; refusals always are."""
        return _LEVELS.get(call, Level.AUTH) <= self._level

    def wants_command(self, kind: str) -> bool:
        """Whether all requests of that kind, by its name in `Command`, within sessions are written down."""
        return (Level.READS if kind in _SESSION_READS else Level.WRITES) <= self._level

    def ended(self, caller: Caller, call: str, request: Message | None, error: BaseException | None) -> None:
        """A call is over. `error`: what its caller is told of, None if all went well."""
        refused = is_refusal(error)
        if is_limit(error):
            self._limited(caller, call, request, error)
        elif refused or self.wants(call):
            self._write(caller, call, request, error, refused or call == "Auth.Authenticate")

    def command(
        self, caller: Caller, kind: str, request: Message | None, error: BaseException | None
    ) -> None:
        """A request within a session was refused, or is answered."""
        refused = is_refusal(error)
        if is_limit(error):
            self._limited(caller, f"Session.{kind}", request, error)
        elif refused or self.wants_command(kind):
            self._write(caller, f"Session.{kind}", request, error, refused)

    def turned_away(self, address: str, certificate: str | None, reason: str) -> None:
        """Somebody's certificate is not one that is let in."""
        line = self._line("", "certificate", address, "", Code.PERMISSION_DENIED.name)
        self._put({**line, "certificate": certificate, "reason": reason}, important=True)

    def limited(self, address: str, call: str, code: Code, reason: str) -> None:
        """Something was refused unread, because it was too much: it is told with others of this second.

        `call`: ``Service.Method``; empty, for a connection.
        """
        self._limits.note(address, "", "", call, code.name, reason)

    def close(self) -> None:
        """Nothing more comes: what has gathered is written down."""
        self._limits.flush()

    def _limited(
        self, caller: Caller, call: str, request: Message | None, error: BaseException | None
    ) -> None:
        code, reason = _outcome(error)
        user, by = self._who(caller, call, request)
        self._limits.note(caller.address, _cut(user), by, call, code, reason or str(error))

    def _told(self, refused: LimitedPeer, told: LimitNotice) -> None:
        line = self._line(refused.user, refused.by, refused.host, refused.call, told.code)
        self._put({**line, "reason": told.reason, "times": told.times}, important=True)

    def _who(self, caller: Caller, call: str, request: Message | None) -> tuple[str, str]:
        """The name that was shown, and by what."""
        if call == "Auth.Authenticate" and request is not None:
            return str(getattr(request, "name", "")), "password"
        return self._user_of(caller), _means(caller)

    def _write(
        self, caller: Caller, call: str, request: Message | None, error: BaseException | None, important: bool
    ) -> None:
        user, by = self._who(caller, call, request)
        code, reason = _outcome(error)
        line = self._line(_cut(user), by, caller.address, call, code)
        if not self._enabled():
            line["unchecked"] = True
        if request is not None and (what := shown(request)):
            line["what"] = what
        if reason:
            line["reason"] = reason
        self._put(line, important=important)

    def _line(self, user: str, by: str, address: str, call: str, code: str) -> dict[str, Any]:
        moment = datetime.fromtimestamp(self._wall() / 1e9, UTC).isoformat(timespec="microseconds")
        return {
            "time": moment.replace("+00:00", "Z"),
            "node": self._node,
            "user": user,
            "by": by,
            "from": address,
            "call": call,
            "code": code,
        }

    def _put(self, line: Mapping[str, Any], *, important: bool) -> None:
        self._trail.write(json.dumps(line, separators=(",", ":")).encode() + b"\n", important=important)


def is_refusal(error: BaseException | None) -> bool:
    """Whether somebody was refused a right, or was nobody who has any."""
    return isinstance(error, Refused) and error.message in RIGHTS


def shown(message: Message, depth: int = _DEPTH) -> dict[str, Any]:
    """What may be seen of a request: the fields of SHOWN, long ones cut."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name not in SHOWN:
            continue
        if field.is_repeated:
            items = [_value(field, one, depth) for one in value[:MOST_ITEMS]]
            if len(value) > MOST_ITEMS:
                items.append(f"and {len(value) - MOST_ITEMS} more")
            found[field.name] = items
        else:
            found[field.name] = _value(field, value, depth)
    return found


def _value(field: FieldDescriptor, value: Any, depth: int) -> Any:
    if isinstance(value, Message):
        return shown(value, depth - 1) if depth else "..."
    if isinstance(value, bytes | str):
        return _cut(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value


def _cut(value: bytes | str) -> str:
    data = value.encode(errors="replace") if isinstance(value, str) else value
    text = data[:MOST_TEXT].decode(errors="backslashreplace")
    return text if len(data) <= MOST_TEXT else f"{text}... ({len(data)} bytes)"


def _means(caller: Caller) -> str:
    if caller.credentials.token is not None:
        return "token"
    return "certificate" if caller.credentials.certificate is not None else ""


def _outcome(error: BaseException | None) -> tuple[str, str]:
    """Code, and the text where it is one of ours: a machine may raise what its caller alone should read."""
    if error is None:
        return Code.OK.name, ""
    if not isinstance(error, Exception):
        return Code.CANCELLED.name, ""
    status = status_of(error)
    return status.code.name, status.text if isinstance(error, Refused) else ""
