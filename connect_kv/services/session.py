"""connect_kv.v1.Session: the fast door, many requests on one stream, each command exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from connect_kv.errors import BadCall, CommandFailed, Refused, SessionExpired
from connect_kv.interfaces import Clock
from connect_kv.protowire import varint
from connect_kv.rpc.command_pb2 import Command, Result, SessionOpen
from connect_kv.rpc.session_pb2 import SessionReplies, SessionRequests
from connect_kv.services.access import Access
from connect_kv.services.audit import is_refusal
from connect_kv.services.caller import Caller, RequestStream
from connect_kv.services.deadlines import WaitingCall
from connect_kv.services.executor import CommandExecutor, field_number
from connect_kv.services.reads import Reads
from connect_kv.services.session_commands import AnsweredBy, SessionCommands
from connect_kv.services.status import failure_of
from connect_kv.services.user_quotas import UserQuotas
from connect_kv.statemachine.loop_budget import LOOK_AT_CLOCK, LoopBudget
from connect_kv.statemachine.sessions import SessionTable

WINDOW = 4096
"""Requests of one stream that may be unanswered: more are not read from it."""
_GETS_AT_ONCE = 16
"""Keys read together, between two looks at the clock: they share the opening of a view."""
REPLY_BYTES = (2 << 20) - 64
"""Results of one message take no more, unless a single one is larger: a client takes 4 MiB by default, and
one that refuses a message gets the same results again, together, each time it resumes."""
_OPEN = field_number("session_open")


class SessionService:
    """Opens and resumes sessions; one `_Door` serves each stream."""

    def __init__(
        self,
        executor: CommandExecutor,
        reads: Reads,
        commands: SessionCommands,
        sessions: SessionTable,
        access: Access,
        *,
        clock: Clock,
        user_quotas: UserQuotas,
        window: int = WINDOW,
    ) -> None:
        self._user_quotas = user_quotas
        self._access = access
        self._executor = executor
        self._reads = reads
        self._commands = commands
        self._sessions = sessions
        self._clock = clock
        self._window = window

    async def Open(self, channel: RequestStream[SessionRequests]) -> None:
        """Serve one stream until the client half-closes it and everything is answered."""
        first: SessionRequests | None = await channel.read()
        if first is None:
            return
        caller = channel.caller
        if (waiting := self._access.ready(caller)) is not None:
            await waiting
        begin = self._resume(caller, first.session) if first.session else self._open(caller, first.ttl)
        session, ttl = await begin
        await channel.write(SessionReplies(session=session, window=self._window, ttl=ttl))
        door = _Door(
            self._executor,
            self._reads,
            self._commands,
            self._access,
            caller,
            session,
            self._window,
            self._clock,
            resumed=bool(first.session),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(door.write(channel))
                await door.read(channel, first, tasks)
                await door.answered()
                writer.cancel()
        finally:
            door.end()

    async def _open(self, caller: Caller, ttl: int) -> tuple[int, int]:
        user = self._access.name(caller)
        self._user_quotas.session(user, self._sessions.owned(user))
        request = SessionOpen(ttl=ttl, user=user)
        result = await self._executor.execute(_OPEN, request.SerializeToString())
        return result.session_open.session, result.session_open.ttl

    async def _resume(self, caller: Caller, session: int) -> tuple[int, int]:
        """Raises SessionExpired: the client learns it before it sends anything again."""
        await self._executor.barrier()
        ttl = self._sessions.ttl(session)
        if ttl is None:
            raise SessionExpired(f"connect-kv: session {session} has expired")
        self._access.owns(caller, self._sessions.owner(session))
        return session, ttl


class _Door:
    """One stream: requests come in batches, results leave in batches, in any order."""

    def __init__(
        self,
        executor: CommandExecutor,
        reads: Reads,
        commands: SessionCommands,
        access: Access,
        caller: Caller,
        session: int,
        window: int,
        clock: Clock,
        *,
        resumed: bool,
    ) -> None:
        """`resumed`: what comes may have been sent before, on another stream."""
        self._resumed = resumed
        self._access = access
        self._caller = caller
        self._clock = clock
        self._executor = executor
        self._reads = reads
        self._commands = commands
        self._session = session
        self._window = window
        self._outstanding = 0
        self._results: list[bytes] = []
        self._changed = asyncio.Event()
        """Results wait to be written."""
        self._under_way: dict[WaitingCall, Sequence[Command]] = {}
        """Proposals, and how many commands each has."""
        self._room = asyncio.Event()
        """Some were written: `_outstanding` is lower."""

    async def read(
        self, channel: RequestStream[SessionRequests], first: SessionRequests, tasks: asyncio.TaskGroup
    ) -> None:
        """Take batches while the window has room, until the client half-closes."""
        request: SessionRequests | None = first
        while request is not None:
            count = len(request.commands)
            if count > self._window:
                raise BadCall(f"connect-kv: a batch of {count} requests exceeds the window of {self._window}")
            if count:
                await self._until(self._window - count)
                self._outstanding += count
                await self._commands.make_room(request.commands)
                if (machine := self._commands.unfounded(request)) is None:
                    await self._accept(request, tasks)
                else:
                    tasks.create_task(self._accept_later(machine, request, tasks))
            request = await channel.read()

    async def answered(self) -> None:
        """Wait until nothing is outstanding."""
        await self._until(0)

    async def write(self, channel: RequestStream[SessionRequests]) -> None:
        """Send whatever results wait, as one batch or a few, again and again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            results, self._results = self._results, []
            for batch in _batches(results):
                await channel.write(_replies(batch))
                self._outstanding -= len(batch)
                self._room.set()

    async def _accept_later(self, machine: str, request: SessionRequests, tasks: asyncio.TaskGroup) -> None:
        """A machine that is called has not begun yet."""
        try:
            await self._commands.founded(machine, self._executor.time_limit)
        except Exception as error:
            others = [one for one in request.commands if one.machine_call.machine != machine]
            waiting = [one.number for one in request.commands if one.machine_call.machine == machine]
            self._fail(waiting, error)
            request = SessionRequests(session=request.session, floor=request.floor, commands=others)
        await self._accept(request, tasks)

    async def _accept(self, request: SessionRequests, tasks: asyncio.TaskGroup) -> None:
        """Sort a batch: commands share one proposal, linearizable reads one barrier."""
        pace = LoopBudget(self._clock)
        sorted_: list[list[Command]] = [[] for _ in AnsweredBy]
        unsure: list[Command] = []
        place, measure = self._commands.place, not self._commands.fits(request)
        judged = self._access.enabled
        for position, command in enumerate(request.commands):
            try:
                if judged:
                    self._commands.judge(self._caller, command)
                sorted_[place(command, measure=measure)].append(command)
            except Exception as error:
                if self._resumed and is_refusal(error) and self._logged(command):
                    self._access.identified(self._caller)
                    unsure.append(command)
                else:
                    self._written_down([command], error)
                    self._fail([command.number], error)
            if not position % LOOK_AT_CLOCK and pace.due:
                await pace.rest()
        commands, gets, reads, local_gets, local_reads = sorted_
        if commands:
            if len(commands) == len(request.commands):
                payload = self._commands.whole_payload(self._caller, request, self._session)
            else:
                payload = self._commands.payload(self._caller, commands, self._session, request.floor)
            self._commit(payload, commands)
        if unsure:
            payload = self._commands.unjudged_payload(self._caller, unsure, self._session, request.floor)
            self._commit(payload, unsure)
        if gets or reads:
            tasks.create_task(self._read(gets, reads, barrier=True))
        if local_gets or local_reads:
            tasks.create_task(self._read(local_gets, local_reads, barrier=False))

    def _logged(self, command: Command) -> bool:
        """Whether its place is in the log: then it may have been carried out when it was sent before, by a
        right that is gone by now. To say "refused" would be to say that it was not.
        """
        try:
            return self._commands.place(command) is AnsweredBy.LOG
        except Exception:
            return False  # it never went there

    def _commit(self, payload: bytes, commands: Sequence[Command]) -> None:
        generation = self._access.generation

        def answered(results: Sequence[bytes]) -> None:
            if self._under_way.pop(call, None):
                self._answer(results)
                self._results_written_down(commands, results, judged=generation)

        def failed(error: Exception) -> None:
            if self._under_way.pop(call, None):
                self._all_failed(commands, error)

        try:
            call = self._executor.begin_in_session(payload, len(commands), answered, failed)
        except Exception as error:
            self._all_failed(commands, error)
        else:
            self._under_way[call] = commands

    def end(self) -> None:
        """The stream is over. What is under way is not proposed any more, if it was not yet."""
        under_way, self._under_way = self._under_way, {}
        for call, commands in under_way.items():
            call.end()
            self._written_down(commands, asyncio.CancelledError())

    def _all_failed(self, commands: Sequence[Command], error: Exception) -> None:
        self._written_down(commands, error)
        self._fail([command.number for command in commands], error)

    async def _read(self, gets: list[Command], reads: list[Command], *, barrier: bool) -> None:
        judged = self._access.generation
        try:
            if barrier:
                await self._executor.barrier()
        except Exception as error:
            self._all_failed([*gets, *reads], error)
            return
        if self._access.generation != judged:
            gets, reads = self._still_good(gets), self._still_good(reads)
        pace = LoopBudget(self._clock)
        self._written_down([*gets, *reads], None)
        for start in range(0, len(gets), _GETS_AT_ONCE):
            self._answer(self._reads.gets(gets[start : start + _GETS_AT_ONCE]))
            if pace.due:
                await pace.rest()
        for command in reads:
            self._answer([await self._reads.answer(command)])
            if pace.due:
                await pace.rest()

    def _still_good(self, commands: list[Command]) -> list[Command]:
        """Those that may be answered by the users and roles behind the barrier (`Access.behind`)."""
        good = []
        for command in commands:
            try:
                self._commands.judge(self._caller, command)
            except Exception as error:
                self._written_down([command], error)
                self._fail([command.number], error)
            else:
                good.append(command)
        return good

    def _fail(self, numbers: Iterable[int], error: Exception) -> None:
        """Tell each. They may be thousands: what is alike in their results is encoded once."""
        failure = Result(failure=failure_of(error)).SerializeToString()
        self._answer([b"".join((_NUMBER, varint(number), failure)) for number in numbers])

    def _written_down(self, commands: Sequence[Command], error: BaseException | None) -> None:
        """In the audit log, if there is one and they belong there."""
        if (audit := self._access.audit) is not None:
            for command in commands:
                kind = command.WhichOneof("request") or "unknown"
                audit.command(self._caller, kind, getattr(command, kind, None), error)

    def _results_written_down(
        self, commands: Sequence[Command], results: Sequence[bytes], *, judged: int
    ) -> None:
        """The same for what was carried out: one by one where all writes belong there, and where users or
        roles have changed since they were judged, for then some may have been refused.
        """
        audit = self._access.audit
        if audit is None or not (audit.wants_command("put") or judged != self._access.generation):
            return
        for command, encoded in zip(commands, results, strict=True):
            self._written_down([command], _error_of(Result.FromString(encoded)))

    def _answer(self, results: Iterable[bytes]) -> None:
        """Send encoded results."""
        self._results.extend(results)
        self._changed.set()

    async def _until(self, outstanding: int) -> None:
        while self._outstanding > outstanding:
            self._room.clear()
            await self._room.wait()


def _error_of(result: Result) -> Exception | None:
    """What a result tells its caller of, without what only that caller should read."""
    if result.WhichOneof("result") != "failure":
        return None
    failure = result.failure
    return CommandFailed(failure.type, "") if failure.type else Refused(failure.code, failure.message)


_NUMBER = bytes((Result.NUMBER_FIELD_NUMBER << 3,))
"""The first field of a result."""
_RESULT = bytes(((SessionReplies.RESULTS_FIELD_NUMBER << 3) | 2,))


@lru_cache(4096)
def _head(size: int) -> bytes:
    """What stands before a result of that many bytes."""
    return _RESULT + varint(size)


def _batches(results: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """As many at once as fit into a message."""
    start = size = 0
    for at, result in enumerate(results):
        more = len(_head(len(result))) + len(result)
        if at > start and size + more > REPLY_BYTES:
            yield results[start:at]
            start, size = at, 0
        size += more
    if start < len(results):
        yield results[start:] if start else results


def _replies(results: Sequence[bytes]) -> bytes:
    """``SessionReplies(results=...)`` encoded, of results that are encoded already."""
    parts: list[bytes] = []
    for result in results:
        parts.append(_head(len(result)))
        parts.append(result)
    return b"".join(parts)
