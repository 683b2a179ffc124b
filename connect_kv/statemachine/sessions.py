"""Sessions: each numbered command runs once, however often it is sent.

Duplicates are recognised by the set of numbers applied above the floor that the client has
acknowledged, never by "last seen": numbers may arrive in any order. Replies above the floor are
replicated state. Decisions depend on the log alone, never on how it was cut into slices; only the
layout on disk does: one record per session and slice holds the replies given there.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from google.protobuf.message import DecodeError

from connect_kv.errors import CorruptStorage
from connect_kv.kv.layout import Changes
from connect_kv.kv.moment import Moment
from connect_kv.rpc.command_pb2 import Command, Done, Failure, Result, SessionOpen, SessionOpened
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader

_SECOND = 1_000_000_000
_POSITION_BITS = 20
"""A session is numbered by the index of its opening entry, and its position within it."""

_INVALID_ARGUMENT = 3
_RESOURCE_EXHAUSTED = 8
_FAILED_PRECONDITION = 9

_SESSION = struct.Struct(">QQQQ")
"""ttl, time and index of its last command, floor"""
_COUNT = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Alike on every member, for they decide what commands do. Changing one needs a new command."""

    sessions: int = 10_000
    """Beyond this the one unused for longest expires."""
    replies: int = 16_384
    """Replies of one session that its client has not acknowledged; more commands are refused."""
    default_ttl: int = 3600
    min_ttl: int = 10
    max_ttl: int = 7 * 24 * 3600


class Slot(NamedTuple):
    """Where the result of a command of this slice will be."""

    row: list[bytes]
    """Encoded results of an entry."""
    position: int


@dataclass(slots=True)
class _Session:
    ttl: int
    used_at: int
    """`Moment.now` of its last command."""
    used_index: int
    floor: int = 0
    owner: str = ""
    """The user who opened it; empty: it was opened while authentication was off."""
    replies: dict[int, int] = field(default_factory=dict)
    """Applied numbers at or above the floor: the record that holds the reply."""
    records: dict[int, int] = field(default_factory=dict)
    """How many of them each record holds; one with none is deleted."""

    def deadline(self, since: int = 0) -> int:
        """It has expired when the time is beyond. What passed before `since` was not measured."""
        return max(self.used_at, since) + self.ttl * _SECOND


def _encode(session: _Session) -> bytes:
    """Its record: numbers, then the owner's name (older versions wrote none)."""
    numbers = _SESSION.pack(session.ttl, session.used_at, session.used_index, session.floor)
    return numbers + session.owner.encode()


class _Run(NamedTuple):
    """Commands admitted in this slice whose results stand side by side."""

    numbers: Sequence[int]
    first: Slot


class SessionTable:
    """All sessions. Used by apply alone, in log order."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        self._limits = limits or SessionLimits()
        self._sessions: dict[int, _Session] = {}
        self._owned: Counter[str] = Counter()
        # Both heaps are lazy: an item may say an earlier time than its session has by now.
        self._deadlines: list[tuple[int, int]] = []
        self._uses: list[tuple[int, int]] = []
        self._running: dict[int, list[_Run]] = {}
        """Sessions used in this slice, and where the results of their commands will be."""
        self._record = 0
        self._read: tuple[bytes, dict[int, bytes]] = b"", {}
        """The record that was read last in this slice, by its key."""

    def __len__(self) -> int:
        return len(self._sessions)

    def ttl(self, session: int) -> int | None:
        """Its seconds, or None if it is not open."""
        found = self._sessions.get(session)
        return None if found is None else found.ttl

    def owner(self, session: int) -> str:
        """Whose it is; empty if it is nobody's, or not open."""
        found = self._sessions.get(session)
        return "" if found is None else found.owner

    def owned(self, owner: str) -> int:
        """How many that user has."""
        return self._owned[owner]

    def unacknowledged(self, session: int) -> int:
        """How many replies are kept for it."""
        found = self._sessions.get(session)
        return 0 if found is None else len(found.replies)

    def load(self, reader: Reader) -> None:
        """Replace everything by what is stored. Raises CorruptStorage."""
        self._sessions.clear()
        self._running.clear()
        try:
            for key, value in reader.iterate(*_bounds(codec.SESSIONS)):
                opened = _Session(*_SESSION.unpack_from(value))
                opened.owner = value[_SESSION.size :].decode()
                self._sessions[codec.decode_u64(key[1:])] = opened
            for key, value in reader.iterate(*_bounds(codec.SESSION_REPLIES)):
                session, record = codec.decode_pair(key[1:])
                self._load_replies(self._sessions[session], record, value)
        except (KeyError, ValueError, struct.error) as error:
            raise CorruptStorage("state", f"session table: {error!r}") from error
        self._owned = Counter(session.owner for session in self._sessions.values())
        self._deadlines = sorted((session.deadline(), id) for id, session in self._sessions.items())
        self._uses = sorted((session.used_index, id) for id, session in self._sessions.items())

    def begin(self, record: int) -> None:
        """A slice starts; `record` names it: the index of its last entry."""
        self._record = record
        self._read = b"", {}
        self._running.clear()

    def advance(self, at: Moment, changes: Changes) -> Iterator[None]:
        """An entry of this moment is about to be applied: sessions end whose time is over, one a step."""
        deadlines, now = self._deadlines, at.now
        while deadlines and deadlines[0][0] < now:
            _, id = heappop(deadlines)
            session = self._sessions.get(id)
            if session is None:
                continue
            deadline = session.deadline(at.since)
            if deadline < now:
                self._end(id, changes)
            else:
                heappush(deadlines, (deadline, id))
            yield

    def open(self, request: SessionOpen, index: int, position: int, at: Moment, changes: Changes) -> Result:
        """A new session; the one unused for longest ends if there are too many."""
        if position >> _POSITION_BITS:
            return _failure(_RESOURCE_EXHAUSTED, "connect-kv: too many commands in one entry")
        limits = self._limits
        if len(self._sessions) >= limits.sessions:
            self._end(self._least_used(), changes)
        id = self._new_id(index << _POSITION_BITS | position, at)
        ttl = min(max(request.ttl, limits.min_ttl), limits.max_ttl) if request.ttl > 0 else limits.default_ttl
        session = _Session(ttl, at.now, index, owner=request.user)
        self._sessions[id] = session
        self._owned[session.owner] += 1
        self._running[id] = []
        heappush(self._deadlines, (session.deadline(), id))
        heappush(self._uses, (index, id))
        return Result(session_open=SessionOpened(session=id, ttl=ttl))

    def _new_id(self, number: int, at: Moment) -> int:
        """Unique, and not only in this log. A cluster that was restored from a backup, or begun anew under
        the same name, comes to the same indexes again: a client that resumed its session there would be
        told what another's commands had done, and its own would not run.
        """
        if not at.elapsed:
            return number  # as members of versions that measured no time choose it
        id = at.scattered(number)
        while not id or id in self._sessions:
            id += 1
        return id

    def close(self, command: Command, changes: Changes) -> Result:
        """End a session and forget its replies."""
        if command.session not in self._sessions:
            return _expired(command)
        self._end(command.session, changes)
        return Result(number=command.number, session_close=Done())

    def admit_all(
        self,
        id: int,
        floor: int,
        numbers: Sequence[int],
        first: Slot,
        index: int,
        now: int,
        changes: Changes,
    ) -> bool:
        """Admit commands of one session together, their results to begin at `first`.

        False if any of them is not plainly new; nothing has changed then, and each is to be admitted
        by itself. It decides as `admit` would for each in turn.
        """
        session = self._sessions.get(id)
        if session is None or not numbers:
            return False
        known = session.replies
        if (
            min(numbers) < max(floor, session.floor, 1)
            or len(set(numbers)) < len(numbers)
            or not known.keys().isdisjoint(numbers)
            or len(known) + len(numbers) > self._limits.replies
        ):
            return False
        self._use(id, session, floor, index, now, changes)
        self._remember(id, session, numbers, first)
        return True

    def admit(
        self, command: Command, slot: Slot, index: int, now: int, reader: Reader, changes: Changes
    ) -> bytes | Slot | None:
        """Decide on a command that names a session.

        None: run it, its result belongs into `slot`. Bytes: the encoded answer it had before, or why
        it is not run. A Slot: it is a duplicate within this slice, and its answer will be there.
        """
        session = self._sessions.get(command.session)
        if session is None:
            return _expired(command).SerializeToString()
        self._use(command.session, session, command.floor, index, now, changes)
        # The floor before the replies: below it they are forgotten, and a number that was executed and
        # acknowledged, sent again by a connection that was slow, would look like a new one and run twice.
        number = command.number
        if number < session.floor or number == 0:
            return _expired(command).SerializeToString()
        if (record := session.replies.get(number)) is not None:
            if record == self._record:
                return self._slot(command.session, number)
            return self._reply(command.session, record, number, reader)
        # Full, but only for what is new: a client whose window is full sends all of it again after a broken
        # stream, and must get its answers, or it never moves its floor and never has room.
        if len(session.replies) >= self._limits.replies:
            return _refused(command, len(session.replies)).SerializeToString()
        self._remember(command.session, session, (number,), slot)
        return None

    def finish(self, changes: Changes) -> Iterator[None]:
        """The slice ends and all results are in their slots: store them, those of some commands a step."""
        for id, runs in self._running.items():
            session = self._sessions.get(id)
            if session is None:
                continue
            changes.put(_key(id), _encode(session))
            kept: dict[int, bytes] = {}
            for numbers, (row, position) in runs:
                kept.update(zip(numbers, row[position : position + len(numbers)], strict=True))
                yield
            if session.floor:
                kept = {number: reply for number, reply in kept.items() if number >= session.floor}
            if kept:
                changes.put(_replies_key(id, self._record), _encode_replies(kept))
            yield
        self._running.clear()

    def _use(self, id: int, session: _Session, floor: int, index: int, now: int, changes: Changes) -> None:
        if id not in self._running:
            self._running[id] = []
        session.used_at, session.used_index = now, index
        if floor > session.floor:
            self._acknowledge(id, session, floor, changes)

    def _remember(self, id: int, session: _Session, numbers: Sequence[int], first: Slot) -> None:
        record = self._record
        session.replies.update(dict.fromkeys(numbers, record))
        session.records[record] = session.records.get(record, 0) + len(numbers)
        self._running[id].append(_Run(numbers, first))

    def _slot(self, id: int, number: int) -> Slot:
        """Where the result of a number of this slice will be."""
        numbers, (row, position) = next(run for run in self._running[id] if number in run.numbers)
        return Slot(row, position + numbers.index(number))

    def _acknowledge(self, id: int, session: _Session, floor: int, changes: Changes) -> None:
        replies = session.replies
        # The floor is the client's word: a giant leap must not cost a giant loop.
        if floor - session.floor <= len(replies):
            dropped = [number for number in range(session.floor, floor) if number in replies]
        else:
            dropped = [number for number in replies if number < floor]
        session.floor = floor
        # Up to `SessionLimits.replies` at once, without a pause: few steps for each.
        for record, count in Counter(map(replies.pop, dropped)).items():
            session.records[record] -= count
            if not session.records[record]:
                del session.records[record]
                changes.delete(_replies_key(id, record))

    def _reply(self, id: int, record: int, number: int, reader: Reader) -> bytes:
        # A batch that is sent again asks for thousands of one record, one after the other.
        key = _replies_key(id, record)
        if self._read[0] != key:
            self._read = key, dict(_decode_replies(reader.get(key) or b""))
        reply = self._read[1].get(number)
        if reply is None:
            raise CorruptStorage("state", f"session {id}: the reply to {number} is missing")
        try:
            Result.FromString(reply)  # seldom: only a repeated command is answered so
        except DecodeError as error:
            raise CorruptStorage("state", f"session {id}: the reply to {number}: {error}") from error
        return reply

    def _load_replies(self, session: _Session, record: int, value: bytes) -> None:
        numbers = [number for number in _numbers(value) if number >= session.floor]
        session.records[record] = len(numbers)
        session.replies.update(dict.fromkeys(numbers, record))

    def _end(self, id: int, changes: Changes) -> None:
        session = self._sessions.pop(id)
        self._owned[session.owner] -= 1
        if not self._owned[session.owner]:
            del self._owned[session.owner]
        changes.delete(_key(id))
        for record in session.records:
            changes.delete(_replies_key(id, record))

    def _least_used(self) -> int:
        uses = self._uses
        while True:
            used, id = heappop(uses)
            session = self._sessions.get(id)
            if session is None:
                continue
            if session.used_index == used:
                return id
            heappush(uses, (session.used_index, id))


def _bounds(prefix: int) -> tuple[bytes, bytes]:
    return bytes((prefix,)), bytes((prefix + 1,))


def _key(session: int) -> bytes:
    return bytes((codec.SESSIONS,)) + codec.u64(session)


def _replies_key(session: int, record: int) -> bytes:
    return bytes((codec.SESSION_REPLIES,)) + codec.pair(session, record)


def _encode_replies(replies: Mapping[int, bytes]) -> bytes:
    """Count, numbers, lengths, replies: numbers can be read without the rest."""
    count = len(replies)
    head = struct.pack(f">I{count}Q{count}I", count, *replies, *map(len, replies.values()))
    return b"".join((head, *replies.values()))


def _numbers(value: bytes) -> tuple[int, ...]:
    (count,) = _COUNT.unpack_from(value)
    return struct.unpack_from(f">{count}Q", value, _COUNT.size)


def _decode_replies(value: bytes) -> Iterator[tuple[int, bytes]]:
    if not value:
        return
    (count,) = _COUNT.unpack_from(value)
    fields = struct.unpack_from(f">{count}Q{count}I", value, _COUNT.size)
    at = _COUNT.size + count * 12
    for number, length in zip(fields[:count], fields[count:], strict=True):
        yield number, value[at : at + length]
        at += length


def _failure(code: int, message: str, type: str = "", number: int = 0) -> Result:
    return Result(number=number, failure=Failure(code=code, message=message, type=type))


def _expired(command: Command) -> Result:
    """Whether an earlier sending of this number took effect cannot be told any more."""
    if command.number == 0:
        return _failure(_INVALID_ARGUMENT, "connect-kv: commands of a session are numbered from 1")
    message = (
        f"connect-kv: session {command.session} has expired, or number {command.number} is below its floor"
    )
    return _failure(_FAILED_PRECONDITION, message, "SessionExpired", command.number)


def _refused(command: Command, kept: int) -> Result:
    """Not remembered, so that it costs no room: the same number may be sent again later."""
    message = f"connect-kv: {kept} replies of this session are not acknowledged; not run"
    return _failure(_RESOURCE_EXHAUSTED, message, "", command.number)
