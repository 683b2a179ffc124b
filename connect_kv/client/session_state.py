"""What a session client must remember to have each command executed exactly once. No I/O here.

Every command gets a number, is encoded with it once, and keeps it however often it is sent; the cluster
runs each number once. `floor` tells the cluster which replies it may forget.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from connect_kv import errors
from connect_kv.client.failures import LOGGED_OUT, SESSION_EXPIRED, SUSPENDED, CallFailed, Fate, failure, fate
from connect_kv.protowire import tag, varint
from connect_kv.rpc.command_pb2 import Command, Failure, Result
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests

BATCH_BYTES = 512 << 10
"""A batch takes no further command beyond this; a larger command travels alone."""

MAX_COMMAND_BYTES = 2 << 20
"""A larger command is not sent: it could only break the stream that others use too."""

WINDOW_BYTES = 8 << 20
"""So much may be under way before a batch. More would only wait at the member, and the answer to the first
for the last: longer than a member may be silent, if values are large and its disk is slow."""

SHARE_FROM = 128
"""A batch of more commands takes at most half of all that are under way, so that two take turns."""


@dataclass(slots=True, eq=False)
class SessionCall:
    """One request and who waits for it."""

    number: int
    command: bytes
    """Encoded, with its number."""
    future: asyncio.Future[Result]
    deadline: float
    writes: bool
    sends: int = 0
    """How often it was sent within this session."""
    suspended: int = 0
    """How often a member said that it does not run that machine."""


class SessionState:
    """Numbers, floor and window of one session after another."""

    def __init__(self, ttl: int, members: int = 1) -> None:
        self._members = members
        self.id = 0
        self.expired = False
        """The cluster has forgotten this session: nothing more is sent in it."""
        self.troubled: CallFailed | None = None
        """Why this member could not carry out a command; another should be asked."""
        self.in_flight = 0
        """Sent on the present stream and not answered there,"""
        self.bytes_in_flight = 0
        """and how much that is."""
        self._ttl = ttl
        self._window = 1
        self._next_number = 1
        self._waiting: deque[SessionCall] = deque()
        self._resend: deque[SessionCall] = deque()
        self._unanswered: dict[int, SessionCall] = {}

    @property
    def has_work(self) -> bool:
        """Whether anybody waits for anything."""
        return bool(self._waiting or self._unanswered)

    @property
    def queued(self) -> int:
        """How many wait to be sent."""
        return len(self._waiting) + len(self._resend)

    def add(self, request: bytes, future: asyncio.Future[Result], deadline: float, *, writes: bool) -> None:
        """Accept an encoded Command that has no number yet; it is sent with the next batch that has room.

        Raises RequestTooLarge.
        """
        number = self._next_number
        encoded = _NUMBER + varint(number) + request
        if len(encoded) > MAX_COMMAND_BYTES:
            limit = f"a session carries {MAX_COMMAND_BYTES}, and members take 1.5 MiB unless told otherwise"
            raise errors.RequestTooLarge(f"{len(encoded)} bytes: {limit}")
        self._next_number = number + 1
        self._waiting.append(SessionCall(number, encoded, future, deadline, writes))

    def head(self) -> bytes:
        """The first batch of a stream: opens a session, or resumes this one."""
        if self.id:
            return SessionRequests(session=self.id, floor=self._floor()).SerializeToString()
        return SessionRequests(ttl=self._ttl).SerializeToString()

    def opened(self, first: SessionReplies) -> None:
        """The first answer on a stream. Whatever was unanswered is sent again, in order."""
        if self.id and first.session != self.id:
            self.expired = True
            return
        self.id = first.session
        self._window = max(1, first.window)
        self.in_flight = self.bytes_in_flight = 0
        self._resend = deque(self._unanswered.values())

    def next_batch(self) -> tuple[bytes, int]:
        """What may be sent now, old commands first, encoded; and how many they are, 0 if none may."""
        room = self._window - self.in_flight
        if room <= 0 or self.bytes_in_flight >= WINDOW_BYTES or self.expired:
            return b"", 0
        # With all of them in one batch, the members would wait while the client works, and it for them.
        calls = self._take(min(room, max(SHARE_FROM, (self.in_flight + self.queued) // 2)))
        for call in calls:
            call.sends += 1
            self._unanswered[call.number] = call
            self.bytes_in_flight += len(call.command)
        self.in_flight += len(calls)
        return _encode(self.id, self._floor(), calls), len(calls)

    def _take(self, room: int) -> list[SessionCall]:
        """The next that somebody still waits for, as many as fit into a batch."""
        taken: list[SessionCall] = []
        size = 0
        for queue in (self._resend, self._waiting):
            while queue and len(taken) < room:
                call = queue[0]
                if call.future.done():
                    queue.popleft()
                    self._unanswered.pop(call.number, None)
                    continue
                size += len(call.command)
                if taken and size > BATCH_BYTES:
                    return taken
                taken.append(queue.popleft())
        return taken

    def replies(
        self, replies: SessionReplies, logged_out: Callable[[str], bool] = lambda text: False
    ) -> None:
        """Hand results to those who wait.

        `logged_out`: whether a refusal with that text is about this stream's token, and another login helps.
        """
        unanswered = self._unanswered
        results = replies.results
        self.in_flight = max(0, self.in_flight - len(results))
        answered = 0
        for result in results:
            number = result.number
            call = unanswered.get(number)
            if call is None:
                continue
            answered += len(call.command)
            if result.HasField("failure"):
                self._failed(call, result, logged_out)
                continue
            del unanswered[number]
            if not call.future.done():
                call.future.set_result(result)
        self.bytes_in_flight = max(0, self.bytes_in_flight - answered)

    def broken(self) -> None:
        """The stream ended. If the session is gone too, settle what was in it and start afresh."""
        self.in_flight = self.bytes_in_flight = 0
        self.troubled = None
        self._resend.clear()
        for number in [number for number, call in self._unanswered.items() if call.future.done()]:
            del self._unanswered[number]
        if self.expired:
            self._renew()

    def waits_until(self, deadline: float) -> bool:
        """Whether anybody still waits who gives up at `deadline` or before."""
        return any(
            call.deadline <= deadline and not call.future.done()
            for calls in (self._unanswered.values(), self._waiting)
            for call in calls
        )

    def expire(self, now: float, account: str) -> float | None:
        """Fail every call whose deadline is over; returns the next deadline, if any.

        `account` says what is wrong with the members, as far as is known.
        """
        why = f": {account}" if account else ""
        for call in self._waiting:
            if call.deadline <= now and not call.future.done():
                call.future.set_exception(errors.Unavailable(f"no member took the request in time{why}"))
        for call in self._unanswered.values():
            if call.deadline <= now and not call.future.done():
                call.future.set_exception(
                    errors.OutcomeUnknown(f"sent, but not answered in time{why}")
                    if call.writes
                    else errors.Unavailable(f"not answered in time{why}")
                )
        while self._waiting and self._waiting[0].future.done():
            self._waiting.popleft()
        # A settled command keeps its number until its reply or the end of the stream: the floor
        # must not pass a command that is still on its way in front of it.
        deadlines = [call.deadline for call in self._waiting if not call.future.done()]
        deadlines += [call.deadline for call in self._unanswered.values() if not call.future.done()]
        return min(deadlines, default=None)

    def fail_all(self, error: errors.ConnectKvError) -> None:
        """The cluster refuses the stream itself: nobody here can be served."""
        for call in [*self._unanswered.values(), *self._waiting]:
            if call.future.done():
                continue
            unknown = call.writes and call.sends
            call.future.set_exception(errors.OutcomeUnknown(str(error)) if unknown else error)
        self._waiting.clear()
        self._unanswered.clear()

    def _floor(self) -> int:
        """Those that wait have higher numbers than those that were sent."""
        if self._unanswered:
            return next(iter(self._unanswered))
        return self._waiting[0].number if self._waiting else self._next_number

    def _failed(self, call: SessionCall, result: Result, logged_out: Callable[[str], bool]) -> None:
        why = result.failure
        if why.type == SESSION_EXPIRED:
            self.expired = True
            if call.sends == 1:  # it was refused the only time it was sent: it never ran
                call.sends = 0
        elif SUSPENDED.match(why.message):
            self._not_here(call, why)
        elif not why.type and fate(why.code, why.message) is not Fate.REFUSED:
            self.troubled = CallFailed(why.code, why.message)  # sending the same number again is safe
        elif not why.type and logged_out(why.message):  # it never entered the log
            self.troubled = CallFailed(why.code, LOGGED_OUT)
        else:
            del self._unanswered[result.number]
            if not call.future.done():
                call.future.set_exception(failure(why))

    def _not_here(self, call: SessionCall, why: Failure) -> None:
        """The machine is suspended on this member: ask another; if it is so on all, that is the answer."""
        call.suspended += 1
        if call.suspended < self._members:
            self.troubled = CallFailed(why.code, why.message)
            return
        unknown = call.writes and call.sends > call.suspended
        del self._unanswered[call.number]
        if not call.future.done():
            kind = errors.OutcomeUnknown if unknown else errors.Unavailable
            call.future.set_exception(kind(why.message))

    def _renew(self) -> None:
        """Move to a new session what certainly did not run, and reads; the rest is of unknown fate."""
        again: list[SessionCall] = []
        for call in self._unanswered.values():
            if call.writes and call.sends:
                call.future.set_exception(errors.SessionExpired("the session expired before an answer came"))
            else:
                call.sends = 0
                again.append(call)
        self._unanswered.clear()
        self._waiting.extendleft(reversed(again))
        self.id = 0
        self.expired = False


_NUMBER = varint(Command.NUMBER_FIELD_NUMBER << 3)
_COMMAND = tag(SessionRequests.COMMANDS_FIELD_NUMBER)


@lru_cache(4096)
def _field_head(size: int) -> bytes:
    """What stands before a command of that many bytes."""
    return _COMMAND + varint(size)


def _encode(session: int, floor: int, calls: Iterable[SessionCall]) -> bytes:
    """``SessionRequests(commands=...)`` of commands that are encoded already."""
    parts = [SessionRequests(session=session, floor=floor).SerializeToString()]
    for call in calls:
        parts += (_field_head(len(call.command)), call.command)
    return b"".join(parts)
