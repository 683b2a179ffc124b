"""What the committed commands mean: sessions, keys and leases a second time, the obvious way.

Applied once to each entry, in order, at the moment the first member has applied it. The answers of
the real machines must be the answers of this one, and its list of events is what watches must see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from connect_kv.raft.types import Entry, EntryKind
from connect_kv.rpc.command_pb2 import Command, CommandBatch, LeaseExpire, Result
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from connect_kv.rpc.maintenance_pb2 import CORRUPT, NOSPACE, AlarmRequest
from connect_kv.statemachine.batches import commands_of, parse
from connect_kv.testing.simulation.judged import Judged

TOLERANCE = 0.95
"""Nothing ends before this part of its time: monotonic clocks may be fast by the rest, wall clocks may not
shorten it at all."""


class Value(NamedTuple):
    """What a key holds."""

    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class ReferenceEvent(NamedTuple):
    """One event. `after` is None for a deletion."""

    revision: int
    key: bytes
    after: Value | None
    before: Value | None


@dataclass(slots=True)
class _ReferenceLease:
    ttl: int
    index: int
    """Entry of the grant or last renewal."""
    since: float
    """When that was proposed: its client had asked for it before."""
    keys: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _ReferenceSession:
    ttl: int
    used: float
    """When its last command was proposed."""
    floor: int = 0


class ReferenceState:
    """The state of keys, leases and sessions after the last committed entry."""

    def __init__(
        self,
        violated: Callable[[str], None],
        now: Callable[[], float],
        stamped: Callable[[int], float | None],
    ) -> None:
        """`stamped` says when an entry with that `log_time` was proposed, by the clock of `now`."""
        self._violated = violated
        self._now = now
        self._stamped = stamped
        self._asked = 0.0
        """When the entry at hand was proposed: its client had asked for it before."""
        self.revision = 1
        self.compacted = 0
        self.changes: list[ReferenceEvent] = []
        self.keys: dict[bytes, Value] = {}
        self.leases: dict[int, _ReferenceLease] = {}
        self.alarms: set[tuple[int, int]] = set()
        """(member, kind)"""
        self.latest_expiry = 0.0
        """Seconds by which the latest lease outlived its time."""
        self.judged = Judged(violated, lambda id: self.leases[id].keys if id in self.leases else set())
        """Who may do what, and whether that is what was done."""
        self._answered: dict[tuple[int, int], bytes] = {}
        self._sessions: dict[int, _ReferenceSession] = {}
        self._sub = 0
        """Changes made in the revision that is being written."""

    def applied(self, entry: Entry, results: Sequence[Result]) -> None:
        """An entry is committed and had these results."""
        if entry.kind is not EntryKind.COMMAND:
            return
        batch = parse(entry)
        commands = list(commands_of(batch))
        asked = self._stamped(batch.log_time)
        self._asked = self._now() if asked is None else asked
        if len(commands) != len(results):
            self._violated(f"{entry.id}: {len(results)} results")
        for command, owner, result in zip(commands, _owners(batch), results, strict=True):
            if self._runs(entry, command, result):
                self._apply(entry, command, owner, result)

    def overdue(self) -> float:
        """Seconds by which any lease has outlived its time, ended or not."""
        now = self._now()
        return max([self.latest_expiry, *(now - one.since - one.ttl for one in self.leases.values())])

    def _runs(self, entry: Entry, command: Command, result: Result) -> bool:
        """Exactly once: a number that was answered before has the same answer, and runs no more."""
        failure = result.failure if result.HasField("failure") else None
        if not command.session:
            return True
        self._use_session(entry, command, expired=failure is not None and failure.type == "SessionExpired")
        if failure is not None and (failure.type == "SessionExpired" or "not run" in failure.message):
            return False
        if command.WhichOneof("request") == "session_close":
            return False
        key = (command.session, command.number)
        answer = result.SerializeToString(deterministic=True)
        known = self._answered.get(key)
        if known is None:
            self._answered[key] = answer
            return True
        if known != answer:
            self._violated(
                f"{entry.id}: command {key} was answered {Result.FromString(known)}, and now {result}"
            )
        return False

    def _use_session(self, entry: Entry, command: Command, *, expired: bool) -> None:
        """No clock ends a session before its time."""
        session = self._sessions.get(command.session)
        if session is None:
            return
        session.floor = max(session.floor, command.floor)
        if expired and command.number >= session.floor:
            idle = self._asked - session.used
            if idle < session.ttl * TOLERANCE:
                self._violated(
                    f"{entry.id}: session {command.session} of {session.ttl} s was ended {idle:.3f} s after "
                    "its last use"
                )
            del self._sessions[command.session]
            return
        session.used = self._asked
        if command.WhichOneof("request") == "session_close":
            del self._sessions[command.session]

    def _apply(self, entry: Entry, command: Command, owner: tuple[str, int], result: Result) -> None:
        kind = command.WhichOneof("request")
        if self.judged.refuses(f"{entry.id}", command, owner, result):
            return
        if kind == "auth":
            self.judged.change(f"{entry.id}", command.auth, result)
            return
        if kind == "session_open" and result.HasField("session_open"):
            opened = result.session_open
            if opened.session in self._sessions:
                self._violated(f"{entry.id}: session {opened.session} is open already")
            self._sessions[opened.session] = _ReferenceSession(opened.ttl, self._asked)
        if kind in ("machine_call", "session_open", "session_close", "member_publish"):
            return
        if kind == "alarm":
            self._alarm(command.alarm)
            return
        if result.HasField("failure"):
            if not self._may_refuse(command):
                self._violated(f"{entry.id}: {kind} was refused: {result.failure.message}")
            return
        self._sub = 0
        where = f"{entry.id} {kind}"
        match kind:
            case "put":
                self._same(where, result.put, self._put(command.put))
            case "delete_range":
                self._same(where, result.delete_range, self._delete(command.delete_range))
            case "txn":
                self._same(where, result.txn, self._txn(command.txn))
            case "compact":
                self.compacted = command.compact.revision
            case "lease_grant":
                granted = result.lease_grant
                if granted.ID in self.leases:
                    self._violated(f"{where}: {granted.ID} exists already")
                self.leases[granted.ID] = _ReferenceLease(granted.TTL, entry.index, self._asked)
            case "lease_renew":
                ttls = [self._renew(lease, entry.index) for lease in command.lease_renew.ids]
                if list(result.lease_renew.ttls) != ttls:
                    self._violated(f"{where}: {result} is not {ttls}")
            case "lease_revoke":
                if command.lease_revoke.ID not in self.leases:
                    self._violated(f"{where}: there is none")
                self._end_lease(command.lease_revoke.ID)
            case "lease_expire":
                self._expire(where, command.lease_expire, list(result.lease_expire.ids))
        if self._sub:
            self.revision += 1

    def _may_refuse(self, command: Command) -> bool:
        """Refusals that depend on the state, and no other."""
        kind = command.WhichOneof("request")
        if kind in ("put", "lease_grant", "txn") and any(alarm == NOSPACE for _, alarm in self.alarms):
            return True
        match kind:
            case "put":
                return bool(command.put.lease and command.put.lease not in self.leases)
            case "lease_grant":
                return command.lease_grant.ID in self.leases
            case "lease_revoke":
                return command.lease_revoke.ID not in self.leases
            case "compact":
                revision = command.compact.revision
                return revision <= self.compacted or revision > self.revision
            case "txn":
                return True
            case _:
                return False

    def _alarm(self, request: AlarmRequest) -> None:
        if request.alarm == CORRUPT:
            self._violated(f"the members found that {request.memberID:x} holds something else than they do")
        if request.action == AlarmRequest.ACTIVATE:
            self.alarms.add((request.memberID, request.alarm))
        elif request.action == AlarmRequest.DEACTIVATE:
            self.alarms.discard((request.memberID, request.alarm))

    def _same(
        self,
        where: str,
        real: PutResponse | DeleteRangeResponse | TxnResponse,
        ours: PutResponse | DeleteRangeResponse | TxnResponse,
    ) -> None:
        ours.header.revision = self.revision + bool(self._sub)
        if real != ours:
            self._violated(f"{where}: answered {real}, not {ours}")

    # Keys.

    def _selected(self, key: bytes, range_end: bytes) -> list[bytes]:
        if not range_end:
            return [key] if key in self.keys else []
        return sorted(k for k in self.keys if k >= key and (range_end == b"\0" or k < range_end))

    def _change(self, key: bytes, after: Value | None) -> None:
        before = self.keys.get(key)
        # Twice in one revision (a transaction): what it was before the revision is what watches see.
        for change in reversed(self.changes):
            if change.revision != self.revision + 1:
                break
            if change.key == key:
                before = change.before
                break
        self.changes.append(ReferenceEvent(self.revision + 1, key, after, before))
        self._sub += 1
        held = self.keys.get(key)
        if held is not None and held.lease in self.leases:
            self.leases[held.lease].keys.discard(key)
        if after is None:
            self.keys.pop(key, None)
        else:
            self.keys[key] = after
            if after.lease in self.leases:
                self.leases[after.lease].keys.add(key)

    def _put(self, request: PutRequest) -> PutResponse:
        old = self.keys.get(request.key)
        response = PutResponse()
        if request.prev_kv and old is not None:
            _fill(response.prev_kv, request.key, old)
        at = self.revision + 1
        self._change(
            request.key,
            Value(
                old.value if old and request.ignore_value else request.value,
                old.create_revision if old else at,
                at,
                old.version + 1 if old else 1,
                old.lease if old and request.ignore_lease else request.lease,
            ),
        )
        return response

    def _delete(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        keys = self._selected(request.key, request.range_end)
        response = DeleteRangeResponse(deleted=len(keys))
        for key in keys:
            if request.prev_kv:
                _fill(response.prev_kvs.add(), key, self.keys[key])
            self._change(key, None)
        return response

    def _range(self, request: RangeRequest) -> RangeResponse:
        keys = self._selected(request.key, request.range_end)
        response = RangeResponse(count=len(keys))
        for key in keys[: request.limit or None]:
            _fill(response.kvs.add(), key, self.keys[key])
        response.more = bool(request.limit) and len(keys) > request.limit
        return response

    def _txn(self, request: TxnRequest) -> TxnResponse:
        holds = all(self._holds(compare) for compare in request.compare)
        response = TxnResponse(succeeded=holds)
        for operation in request.success if holds else request.failure:
            self._operate(operation, response.responses.add())
        return response

    def _operate(self, operation: RequestOp, response: ResponseOp) -> None:
        match operation.WhichOneof("request"):
            case "request_put":
                response.response_put.CopyFrom(self._put(operation.request_put))
            case "request_delete_range":
                response.response_delete_range.CopyFrom(self._delete(operation.request_delete_range))
            case "request_range":
                response.response_range.CopyFrom(self._range(operation.request_range))
            case other:
                raise ValueError(f"the simulator's workloads have no {other}")
        part = getattr(response, response.WhichOneof("response") or "")
        part.header.revision = self.revision + bool(self._sub)

    def _holds(self, compare: Compare) -> bool:
        held = self.keys.get(compare.key)
        pairs = {
            Compare.VERSION: (held.version if held else 0, compare.version),
            Compare.CREATE: (held.create_revision if held else 0, compare.create_revision),
            Compare.MOD: (held.mod_revision if held else 0, compare.mod_revision),
            Compare.LEASE: (held.lease if held else 0, compare.lease),
        }
        if compare.target == Compare.VALUE:
            if held is None:
                return False
            return _compare(compare.result, held.value, compare.value)
        return _compare(compare.result, *pairs[compare.target])

    # Leases.

    def _renew(self, id: int, index: int) -> int:
        lease = self.leases.get(id)
        if lease is None:
            return 0
        lease.index, lease.since = index, self._asked
        return lease.ttl

    def _expire(self, where: str, request: LeaseExpire, ended: list[int]) -> None:
        over = [
            id
            for id, renewal in {item.id: item.renewal for item in request.items}.items()
            if id in self.leases and self.leases[id].index <= renewal
        ]
        if ended != over:
            self._violated(f"{where}: ended {ended}, not {over}")
        for id in over:
            lease = self.leases[id]
            lived = self._now() - lease.since
            if lived < lease.ttl * TOLERANCE:
                self._violated(
                    f"{where}: lease {id} of {lease.ttl} s was ended {lived:.3f} s after its last renewal"
                )
            self.latest_expiry = max(self.latest_expiry, lived - lease.ttl)
            self._end_lease(id)
            self.revision += bool(self._sub)  # each lease is a revision of its own
            self._sub = 0

    def _end_lease(self, id: int) -> None:
        for key in sorted(self.leases[id].keys):
            self._change(key, None)
        del self.leases[id]


def _owners(batch: CommandBatch) -> Iterator[tuple[str, int]]:
    """For each command, as whose it was judged, and by which generation."""
    for command in batch.commands:
        if command.HasField("session_batch"):
            together = command.session_batch
            yield from [(together.user, together.judged)] * len(together.commands)
        else:
            yield command.user, command.judged


def _fill(kv: object, key: bytes, value: Value) -> None:
    for name, item in zip(value._fields, value, strict=True):
        setattr(kv, name, item)
    kv.key = key  # type: ignore[attr-defined]


def _compare(result: int, have: int | bytes, want: int | bytes) -> bool:
    match result:
        case Compare.EQUAL:
            return have == want
        case Compare.NOT_EQUAL:
            return have != want
        case Compare.GREATER:
            return have > want  # type: ignore[operator]  # both of one kind
        case _:
            return have < want  # type: ignore[operator]
