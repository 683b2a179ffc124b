"""Which commands a session may carry, checked before anything is replicated."""

from __future__ import annotations

import random
from collections.abc import Callable

from connect_kv.api.status import failure_of
from connect_kv.errors import BadCall, RequestTooLarge
from connect_kv.kv import validation
from connect_kv.machines.host import MachineHost
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Result


class SessionCommands:
    """Checks commands of a session and encodes them for the log."""

    def __init__(
        self, host: MachineHost, rng: random.Random, *, min_lease_ttl: int, max_request_bytes: int
    ) -> None:
        self._host = host
        self._rng = rng
        self._min_lease_ttl = min_lease_ttl
        self._max_request_bytes = max_request_bytes
        self._checks: dict[str, Callable[[Command], None]] = {
            "put": lambda command: validation.check_put(command.put),
            "delete_range": lambda command: validation.check_delete_range(command.delete_range),
            "txn": lambda command: validation.check_txn(command.txn),
            "compact": _nothing,
            "lease_grant": self._complete_grant,
            "lease_revoke": _nothing,
            "lease_renew": _nothing,
            "machine_call": self._check_call,
            "session_close": _nothing,
        }

    def check(self, command: Command, name: str | None) -> Result | None:
        """The refusal, if it is refused; it then never happened and its number stays unused."""
        try:
            check = self._checks.get(name or "")
            if check is None:
                raise BadCall(f"connect-kv: a session does not carry {name or 'an empty or unknown request'}")
            if not command.number:
                raise BadCall("connect-kv: commands of a session are numbered from 1")
            if command.ByteSize() > self._max_request_bytes:
                raise RequestTooLarge
            check(command)
        except Exception as error:
            return Result(number=command.number, failure=failure_of(error))
        return None

    def payload(self, commands: list[Command], session: int, floor: int) -> bytes:
        """One proposal with all of them."""
        commands[0].floor = floor  # once is enough: a floor only rises
        for command in commands:
            command.session = session
        return CommandBatch(commands=commands).SerializeToString()

    def _complete_grant(self, command: Command) -> None:
        """As the unary door does: a random id unless one is given, and a TTL that survives elections."""
        grant = command.lease_grant
        grant.TTL = max(grant.TTL, self._min_lease_ttl)
        if not grant.ID:
            grant.ID = self._rng.randrange(1, 1 << 63)

    def _check_call(self, command: Command) -> None:
        call = command.machine_call
        self._host.check_call(call.machine, call.method, call.arguments)


def _nothing(command: Command) -> None:
    """Everything about it is decided when it is applied."""
