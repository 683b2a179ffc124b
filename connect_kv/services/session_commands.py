"""Which requests a session may carry, checked and sorted before anything is replicated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

from connect_kv.errors import BadCall, RequestTooLarge
from connect_kv.framework.types import MethodKind
from connect_kv.kv import validation
from connect_kv.kv.gets import is_plain
from connect_kv.rpc.command_pb2 import Command, SessionBatch
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.rpc.session_pb2 import SessionRequests
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller
from connect_kv.services.executor import encode_command, field_number
from connect_kv.services.machine_calls import MachineCalls
from connect_kv.services.quota import Quota

_SESSION_BATCH = field_number("session_batch")


class AnsweredBy(IntEnum):
    """Where a request is answered. An index: a dictionary of Enums would hash each in Python."""

    LOG = 0
    """Replicated: its result comes from apply."""
    GET = 1
    """One key (`kv.gets.is_plain`), read here once everything acknowledged before is visible."""
    READ = 2
    """Another read, made then, too."""
    LOCAL_GET = 3
    """One key, read here at once."""
    LOCAL_READ = 4
    """Another read, made at once."""


_KV = frozenset(("put", "delete_range", "txn", "compact", "lease_grant", "lease_revoke", "lease_renew"))
_LEASE_READS = frozenset(("lease_time_to_live", "lease_leases"))


class SessionCommands:
    """Checks requests of a session and encodes commands for the log."""

    def __init__(
        self,
        calls: MachineCalls,
        access: Access,
        *,
        max_request_bytes: int,
        leases: Callable[[], Iterable[int]],
        quota: Quota | None = None,
    ) -> None:
        """`leases`: the ids of all leases."""
        self._calls = calls
        self._access = access
        self._leases = leases
        self._quota = quota
        self._max_request_bytes = max_request_bytes

    async def make_room(self, commands: Sequence[Command]) -> None:
        """Before they are placed: what is refused for space is refused by what the disk holds now."""
        if self._quota is not None:
            await self._quota.make_room(commands)

    def place(self, command: Command, *, measure: bool = True) -> AnsweredBy:
        """Where it goes. Raises Refused, BadCall, RequestTooLarge: then it never happened, and its
        number stays unused. Not to `measure` it saves a third where its size is known to be right.
        """
        if not command.number:
            raise BadCall("connect-kv: requests of a session are numbered from 1")
        if measure and command.ByteSize() > self._max_request_bytes:
            raise RequestTooLarge
        if self._quota is not None:
            self._quota.admit(command)
        name = command.WhichOneof("request")
        if name == "put":
            validation.check_put(command.put)
            return AnsweredBy.LOG
        if name == "range":
            return _place_range(command.range)
        if name in _KV:
            validation.check_command(command)
            return AnsweredBy.LOG
        if name in _LEASE_READS:
            return AnsweredBy.READ
        if name in ("machine_call", "machine_query"):
            return self._place_call(command, name)
        if name == "session_close":
            return AnsweredBy.LOG
        raise BadCall(f"connect-kv: a session does not carry {name or 'an empty or unknown request'}")

    def _place_call(self, command: Command, name: str) -> AnsweredBy:
        call = command.machine_call if name == "machine_call" else command.machine_query
        arguments = call.arguments
        checked = self._calls.check(call.machine, call.method, arguments)
        if checked.arguments is not arguments:
            call.arguments = checked.arguments
        call.version = checked.version
        if checked.kind is MethodKind.QUERY:
            return AnsweredBy.READ
        if name == "machine_query":
            raise BadCall(f"{call.method!r} is a command, not a query")
        return AnsweredBy.LOG

    def unfounded(self, request: SessionRequests) -> str | None:
        """A machine that it calls and that has not begun: its commands must wait for that."""
        if not self._calls.any_unfounded:
            return None
        names = {one.machine_call.machine for one in request.commands if one.HasField("machine_call")}
        return next((name for name in sorted(names) if self._calls.unfounded(name)), None)

    async def founded(self, machine: str, time_limit: float) -> None:
        """Wait until a machine has begun. Raises MachineSuspended."""
        await self._calls.founded(machine, time_limit)

    def judge(self, caller: Caller, command: Command) -> None:
        """Whether that user may do this. Raises Refused: then it never happened."""
        access, name = self._access, command.WhichOneof("request")
        match name:
            case "put":
                access.put(caller, command.put)
            case "range":
                access.range(caller, command.range)
            case "delete_range":
                access.delete_range(caller, command.delete_range)
            case "txn":
                access.txn(caller, command.txn)
            case "compact":
                access.root(caller)
            case "lease_revoke":
                access.lease_write(caller, command.lease_revoke.ID)
            case "lease_renew":
                for lease in command.lease_renew.ids:
                    access.lease_write(caller, lease)
            case "lease_time_to_live" if command.lease_time_to_live.keys:
                access.leases(caller, (command.lease_time_to_live.ID,))
            case "lease_leases":
                access.leases(caller, self._leases())
            case "machine_call":
                access.command(caller, command.machine_call.machine)
            case "machine_query":
                access.query(caller, command.machine_query.machine)
            case _:  # leases, and the session itself: for anybody who is known
                access.known(caller)

    def fits(self, requests: SessionRequests) -> bool:
        """Whether none of them can be too large, because they are not together."""
        return requests.ByteSize() <= self._max_request_bytes

    def payload(self, caller: Caller, commands: Sequence[Command], session: int, floor: int) -> bytes:
        """One proposal with some commands of a batch."""
        user, judged = self._access.judged(caller)
        batch = SessionBatch(session=session, floor=floor, commands=commands, user=user, judged=judged)
        return _proposal(batch)

    def unjudged_payload(
        self, caller: Caller, commands: Sequence[Command], session: int, floor: int
    ) -> bytes:
        """The same for commands that are to be judged where they are applied: those that were applied before
        are answered as they were then, others are refused.
        """
        user = self._access.who(caller)
        return _proposal(SessionBatch(session=session, floor=floor, commands=commands, user=user))

    def whole_payload(self, caller: Caller, requests: SessionRequests, session: int) -> bytes:
        """One proposal with all of them, which are copied as a whole."""
        requests.session = session
        # Always, for these fields a client could have sent: judged by whom it likes.
        requests.user, requests.judged = self._access.judged(caller)
        requests.ClearField("ttl")
        return _proposal(requests)


def _place_range(request: RangeRequest) -> AnsweredBy:
    if is_plain(request):  # with nothing else in it, there is nothing else to check
        return AnsweredBy.LOCAL_GET if request.serializable else AnsweredBy.GET
    validation.check_range(request)
    return AnsweredBy.LOCAL_READ if request.serializable else AnsweredBy.READ


def _proposal(batch: SessionBatch | SessionRequests) -> bytes:
    """A SessionRequests without a TTL *is* a SessionBatch: they have the same fields (command.proto)."""
    return encode_command(_SESSION_BATCH, batch.SerializeToString())
