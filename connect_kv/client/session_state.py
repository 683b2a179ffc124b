"""What a session client must remember to have each command executed exactly once. No I/O here.

Every command gets a number when it is first sent, and keeps it however often it is sent again; the
cluster runs each number once. `floor` tells the cluster which replies it may forget.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from connect_kv import errors
from connect_kv.client.failures import SESSION_EXPIRED, Fate, failure, fate
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests

BATCH_BYTES = 512 << 10
"""A batch takes no further command beyond this; a larger command travels alone."""

SHARE_FROM = 128
"""A batch of more commands takes at most half of all that are under way, so that two take turns."""


@dataclass(slots=True, eq=False)
class Call:
    """One request and who waits for it."""

    command: Command
    future: asyncio.Future[Result]
    deadline: float
    writes: bool
    size: int
    """Encoded bytes of the command, its number aside."""
    sends: int = 0
    """How often it was sent within this session; its number is set once this is not 0."""


class SessionState:
    """Numbers, floor and window of one session after another."""

    def __init__(self, ttl: int) -> None:
        self.id = 0
        self.expired = False
        """The cluster has forgotten this session: nothing more is sent in it."""
        self.troubled: errors.ConnectKvError | None = None
        """Why this member could not carry out a command; another should be asked."""
        self.last_trouble = ""
        """What went wrong last, for those who get nothing in time."""
        self.in_flight = 0
        """Sent on the present stream and not answered there."""
        self._ttl = ttl
        self._window = 1
        self._next_number = 1
        self._waiting: deque[Call] = deque()
        self._resend: deque[Call] = deque()
        self._unanswered: dict[int, Call] = {}

    @property
    def has_work(self) -> bool:
        """Whether anybody waits for anything."""
        return bool(self._waiting or self._unanswered)

    @property
    def queued(self) -> int:
        """How many wait to be sent."""
        return len(self._waiting) + len(self._resend)

    def add(self, call: Call) -> None:
        """Accept a request; it is sent with the next batch that has room."""
        self._waiting.append(call)

    def head(self) -> SessionRequests:
        """The first batch of a stream: opens a session, or resumes this one."""
        if self.id:
            return SessionRequests(session=self.id, floor=self._floor())
        return SessionRequests(ttl=self._ttl)

    def opened(self, first: SessionReplies) -> None:
        """The first answer on a stream. Whatever was unanswered is sent again, in order."""
        if self.id and first.session != self.id:
            self.expired = True
            return
        self.id = first.session
        self._window = max(1, first.window)
        self.in_flight = 0
        self._resend = deque(self._unanswered.values())

    def next_batch(self) -> SessionRequests | None:
        """What may be sent now, old commands first; None if nothing may."""
        room = self._window - self.in_flight
        if room <= 0 or self.expired or not (self._resend or self._waiting):
            return None
        # With all of them in one batch, the members would wait while the client works, and it for them.
        room = min(room, max(SHARE_FROM, (self.in_flight + self.queued) // 2))
        commands: list[Command] = []
        size = 0
        while len(commands) < room and (self._resend or self._waiting):
            queue = self._resend or self._waiting
            call = queue[0]
            if call.future.done():
                queue.popleft()
                self._unanswered.pop(call.command.number, None)
                continue
            size += call.size
            if commands and size > BATCH_BYTES:
                break
            queue.popleft()
            if not call.sends:
                call.command.number = self._next_number
                self._unanswered[self._next_number] = call
                self._next_number += 1
            call.sends += 1
            commands.append(call.command)
        if not commands:
            return None
        self.in_flight += len(commands)
        return SessionRequests(session=self.id, floor=self._floor(), commands=commands)

    def replies(self, replies: SessionReplies) -> None:
        """Hand results to those who wait."""
        unanswered = self._unanswered
        self.in_flight = max(0, self.in_flight - len(replies.results))
        for result in replies.results:
            call = unanswered.get(result.number)
            if call is None:
                continue
            if result.HasField("failure"):
                self._failed(call, result)
                continue
            del unanswered[result.number]
            if not call.future.done():
                call.future.set_result(result)

    def broken(self) -> None:
        """The stream ended. If the session is gone too, settle what was in it and start afresh."""
        self.in_flight = 0
        self.troubled = None
        self._resend.clear()
        for number in [number for number, call in self._unanswered.items() if call.future.done()]:
            del self._unanswered[number]
        if self.expired:
            self._renew()

    def expire(self, now: float) -> float | None:
        """Fail every call whose deadline is over; returns the next deadline, if any."""
        why = f" ({self.last_trouble})" if self.last_trouble else ""
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
        return next(iter(self._unanswered), self._next_number)

    def _failed(self, call: Call, result: Result) -> None:
        why = result.failure
        if why.type == SESSION_EXPIRED:
            self.expired = True
            if call.sends == 1:  # it was refused the only time it was sent: it never ran
                call.sends = 0
        elif not why.type and fate(why.code, why.message) is not Fate.REFUSED:
            self.troubled = errors.Unavailable(why.message)  # sending the same number again is safe
        else:
            del self._unanswered[result.number]
            if not call.future.done():
                call.future.set_exception(failure(why))

    def _renew(self) -> None:
        """Move to a new session what certainly did not run, and reads; the rest is of unknown fate."""
        again: list[Call] = []
        for call in self._unanswered.values():
            if call.writes and call.sends:
                call.future.set_exception(errors.SessionExpired("the session expired before an answer came"))
            else:
                call.sends = 0
                call.command.number = 0
                again.append(call)
        self._unanswered.clear()
        self._waiting.extendleft(reversed(again))
        self.id = 0
        self.expired = False
        self._next_number = 1
