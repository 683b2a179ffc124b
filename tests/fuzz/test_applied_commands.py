"""What a door lets in is applied with a result: an entry that raises would stop every member."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from connect_kv.errors import BadCall, Refused, RequestTooLarge
from connect_kv.framework.replicated import Replicated, command
from connect_kv.kv import validation
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Result
from connect_kv.rpc.kv_pb2 import TxnRequest
from connect_kv.services.caller import Caller
from connect_kv.services.machine_calls import MachineCalls
from connect_kv.services.session_commands import AnsweredBy, SessionCommands
from connect_kv.statemachine.hosted import ReplicatedMachine
from connect_kv.statemachine.user_machines import UserMachines
from tests.fuzz.conftest import fuzz, integers, messages
from tests.services.conftest import everybody
from tests.statemachine.conftest import Member, open_session

pytestmark = pytest.mark.long

IN_SESSION = frozenset(
    [
        "put",
        "delete_range",
        "txn",
        "compact",
        "lease_grant",
        "lease_revoke",
        "lease_renew",
        "machine_call",
        "session_close",
    ]
)
UNARY = frozenset(
    [
        "put",
        "delete_range",
        "txn",
        "compact",
        "lease_grant",
        "lease_revoke",
        "lease_renew",
        "alarm",
        "session_open",
    ]
)


class Box(Replicated):
    """Takes anything."""

    def __init__(self) -> None:
        self.calls = 0

    @command
    def add(self, a: object = None, b: int | str | list[int] = 1) -> object:
        self.calls += 1
        return a


MACHINES: Mapping[str, type[Replicated]] = {"counter": Box}
CALLS = MachineCalls(UserMachines({"counter": ReplicatedMachine(Box())}))
DOOR = SessionCommands(CALLS, everybody(), max_request_bytes=1 << 20, leases=lambda: ())


def admitted_in_session(command: Command) -> bool:
    try:
        return DOOR.place(command) is AnsweredBy.LOG
    except (Refused, BadCall, RequestTooLarge):
        return False


def admitted_unary(command: Command) -> bool:
    """As the services that take no session check it."""
    try:
        validation.check_command(command)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("kind", sorted(IN_SESSION))
def test_every_command_admitted_to_a_session_has_a_result(kind: str) -> None:
    mostly = messages(Command, depth=5, only=frozenset({kind})).filter(admitted_in_session)
    others = messages(Command, depth=3, only=IN_SESSION).filter(admitted_in_session)

    @fuzz(40)
    @given(st.lists(st.lists(mostly | mostly | others, min_size=1, max_size=4), max_size=3), times)
    def run(slices: list[list[Command]], log_times: list[int]) -> None:
        asyncio.run(apply_in_session(slices, log_times))

    run()


@pytest.mark.parametrize("kind", sorted(UNARY))
def test_every_command_admitted_outside_a_session_has_a_result(kind: str) -> None:
    mostly = messages(Command, depth=5, only=frozenset({kind})).filter(admitted_unary)
    others = messages(Command, depth=3, only=UNARY).filter(admitted_unary)

    @fuzz(40)
    @given(st.lists(st.lists(mostly | mostly | others, min_size=1, max_size=4), max_size=3), times)
    def run(slices: list[list[Command]], log_times: list[int]) -> None:
        asyncio.run(apply_unary(slices, log_times))

    run()


times = st.lists(integers(0, 2**63 - 1), min_size=8, max_size=8)


async def apply_in_session(slices: list[list[Command]], log_times: list[int]) -> None:
    member = await Member(MACHINES).start()
    session = await member.open_session(log_time=log_times[-1])
    for commands, log_time in zip(slices, log_times, strict=False):
        payload = CommandBatch.FromString(DOOR.payload(Caller(), commands, session, floor=commands[0].floor))
        check(await member.run(*payload.commands, log_time=log_time), commands)
    await check_stored(member)


async def apply_unary(slices: list[list[Command]], log_times: list[int]) -> None:
    member = await Member(MACHINES).start()
    for commands, log_time in zip(slices, log_times, strict=False):
        for one in commands:
            one.ClearField("session")
        check(await member.run(*commands, log_time=log_time), commands)
    await check_stored(member)


async def check_stored(member: Member) -> None:
    """What was written can be read again, and is the same."""
    before = member.state()
    await member.restart()
    assert member.state() == before
    await member.host.close()


def check(results: list[Result], commands: list[Command]) -> None:
    assert len(results) == len(commands)
    for result in results:
        assert result.WhichOneof("result")
        # It travels to the client, and from the disk back to one that asks again.
        assert Result.FromString(result.SerializeToString()) == result


def nested(levels: int) -> TxnRequest:
    """A transaction within a transaction within ..."""
    request = innermost = TxnRequest()
    for _ in range(levels):
        innermost = innermost.success.add().request_txn
    innermost.success.add().request_put.key = b"k"
    innermost.success.add().request_range.key = b"k"
    return request


@pytest.mark.parametrize("levels", [*range(8), *range(16, 64)])
async def test_a_deeply_nested_transaction_is_refused_or_applied(levels: int) -> None:
    """What a door can parse, every member must be able to parse in its envelopes."""
    try:
        request = TxnRequest.FromString(nested(levels).SerializeToString())
    except DecodeError:
        return
    command = Command(number=1)
    command.txn.CopyFrom(request)
    if not admitted_in_session(command):
        assert not admitted_unary(command)
        return
    member = await Member(MACHINES).start()
    session = await member.open_session()
    command.session = session
    for _ in range(2):  # the second answer comes from the stored one
        check(await member.run(command), [command])
    await member.host.close()


async def test_open_sessions_of_any_ttl() -> None:
    member = await Member(MACHINES).start()
    for ttl in (-(2**63), -1, 0, 1, 2**63 - 1):
        (result,) = await member.run(open_session(ttl))
        assert result.session_open.session
    await member.host.close()
