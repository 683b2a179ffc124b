"""Deadlines, sizes and safe retries, in the one place that has them."""

import asyncio
from collections.abc import Sequence

import pytest

from connect_kv.errors import (
    BadCall,
    CommandFailed,
    NoLeader,
    NotProposed,
    OutcomeUnknown,
    Overloaded,
    Refused,
    RequestTooLarge,
    SessionExpired,
    TimedOut,
)
from connect_kv.rpc.command_pb2 import Command, CommandBatch, Failure, Result
from connect_kv.rpc.kv_pb2 import PutRequest
from connect_kv.services import session_commands
from connect_kv.services.executor import FIRST_COMMANDS, CommandExecutor, encode_command, field_number
from connect_kv.services.machine_calls import MachineCalls
from connect_kv.services.session_commands import SessionCommands
from connect_kv.services.status import raise_failure, status_of
from connect_kv.statemachine.user_machines import UserMachines
from tests.services.conftest import FakeNode, everybody, proposed_in_session

PUT = field_number("put")


def executor(node: FakeNode, *, time_limit: float = 5.0) -> CommandExecutor:
    return CommandExecutor(
        node, cluster_id=10, member_id=1, revision=lambda: 4, time_limit=time_limit, max_request_bytes=1000
    )


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000, 3_000_000])
def test_a_command_is_encoded_as_protobuf_would(size: int) -> None:
    for name in ("put", "machine_call", "alarm"):
        command = Command()
        request = getattr(command, name)
        if isinstance(request, PutRequest):
            request.value = b"v" * size
        request.SetInParent()
        expected = CommandBatch(commands=[command]).SerializeToString()
        assert encode_command(field_number(name), request.SerializeToString()) == expected


async def test_a_result_comes_back_and_the_header_is_filled() -> None:
    node = FakeNode()
    ours = executor(node)
    await ours.execute(PUT, PutRequest(key=b"k").SerializeToString())
    assert node.batches[0].commands[0].put.key == b"k"
    header = ours.header()
    assert (header.cluster_id, header.member_id, header.revision, header.raft_term) == (10, 1, 4, 3)


async def test_a_request_over_the_limit_is_not_proposed() -> None:
    node = FakeNode()
    with pytest.raises(RequestTooLarge):
        await executor(node).execute(PUT, b"x" * 1001)
    assert not node.batches


async def test_what_was_certainly_not_proposed_is_tried_again() -> None:
    node = FakeNode()
    node.failures = [NoLeader(), NotProposed(), NoLeader()]
    await executor(node).execute(PUT, b"")
    assert len(node.batches) == 1


@pytest.mark.parametrize("error", [OutcomeUnknown(), Overloaded()])
async def test_what_may_have_happened_is_not_tried_again(error: Exception) -> None:
    node = FakeNode()
    node.failures = [error]
    with pytest.raises(type(error)):
        await executor(node).execute(PUT, b"")
    assert not node.batches


async def test_within_a_session_everything_temporary_is_tried_again() -> None:
    node = FakeNode()
    node.failures = [OutcomeUnknown(), Overloaded(), NoLeader()]
    await proposed_in_session(executor(node), encode_command(PUT, b""))
    assert len(node.batches) == 1


async def test_no_leader_until_the_deadline_is_said() -> None:
    node = FakeNode()
    node.failures = [NoLeader()] * 1000
    with pytest.raises(NoLeader):
        await executor(node, time_limit=0.5).barrier()


async def test_a_proposal_is_not_in_doubt_while_no_leader_is_known() -> None:
    node = FakeNode()
    node.leader_id = None
    with pytest.raises(NoLeader):
        await executor(node, time_limit=0.1).execute(PUT, b"")
    assert not node.batches


async def test_what_was_in_doubt_once_stays_so() -> None:
    class Lost(FakeNode):
        async def propose(self, payload: bytes, count: int = 1) -> Sequence[bytes]:
            self.leader_id = None
            return await super().propose(payload, count)

    node = Lost()
    node.failures = [OutcomeUnknown()]
    with pytest.raises(OutcomeUnknown):
        await proposed_in_session(executor(node, time_limit=0.1), encode_command(PUT, b""))


async def test_a_proposal_without_an_answer_is_of_unknown_outcome() -> None:
    node = FakeNode(lambda batch: [])

    async def never(payload: bytes, count: int = 1) -> list[bytes]:
        import asyncio

        await asyncio.Event().wait()
        return []

    node.propose = never  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await executor(node, time_limit=0.01).execute(PUT, b"")


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Failure(code=3, message="m"), Refused),
        (Failure(code=10, message="m", type="KeyError"), CommandFailed),
        (Failure(code=9, message="m", type="SessionExpired"), SessionExpired),
    ],
)
def test_a_replicated_failure_is_raised(failure: Failure, error: type[Exception]) -> None:
    with pytest.raises(error):
        raise_failure(Result(failure=failure))


async def test_more_calls_than_may_wait_are_refused_at_once() -> None:
    """An overloaded member says so, instead of growing; as soon as one is answered, another may come."""
    node = FakeNode()
    answer = asyncio.Event()

    async def slow(payload: bytes, count: int = 1) -> Sequence[bytes]:
        await answer.wait()
        return [Result().SerializeToString()]

    node.propose = slow  # type: ignore[method-assign]
    ours = CommandExecutor(node, cluster_id=1, member_id=1, revision=lambda: 1, max_waiting=2)
    waiting = [asyncio.create_task(ours.execute(PUT, b"")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ours.execute(PUT, b"")
    with pytest.raises(Overloaded):
        await ours.barrier()
    answer.set()
    await asyncio.gather(*waiting)
    await ours.execute(PUT, b"")


async def test_a_kind_that_not_every_member_knows_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old member would have to stop at it."""
    monkeypatch.setattr("connect_kv.services.executor.FIRST_COMMANDS", 0)
    executor = CommandExecutor(
        FakeNode(), cluster_id=1, member_id=2, revision=lambda: 1, understood=lambda field: field != PUT
    )
    with pytest.raises(Refused, match="not capable"):
        await executor.execute(PUT, b"")


def test_a_session_carries_only_kinds_that_every_version_knows() -> None:
    """It does not ask what the others know: a newer kind needs `understood` there, too."""
    names = [*session_commands._KV, "machine_call", "session_close"]
    numbers = {name: Command.DESCRIPTOR.fields_by_name[name].number for name in names}
    assert max(numbers.values()) <= FIRST_COMMANDS
    places = SessionCommands(
        MachineCalls(UserMachines({})), everybody(), max_request_bytes=1 << 20, leases=lambda: ()
    )
    for field in Command.DESCRIPTOR.oneofs_by_name["request"].fields:
        if field.name not in names and field.number < 64:
            command = Command(number=1)
            getattr(command, field.name).SetInParent()
            with pytest.raises(BadCall):
                places.place(command)


async def test_who_waited_in_vain_is_told_why() -> None:
    """The reason follows the fixed text, without saying twice what both say."""
    node = FakeNode()
    node.failures = [NoLeader("of the node's own")]
    node.leader_id = None
    ours = CommandExecutor(
        node,
        cluster_id=1,
        member_id=1,
        revision=lambda: 1,
        time_limit=0.05,
        why=lambda: "no leader: 1 of 3 voters answers, 2 needed",
    )
    with pytest.raises(NoLeader) as raised:
        await ours.execute(PUT, b"")
    assert status_of(raised.value).text == "etcdserver: no leader: 1 of 3 voters answers, 2 needed"

    unknown = "etcdserver: request timed out, its outcome is unknown: it may still take effect"
    assert status_of(OutcomeUnknown("because")).text == f"{unknown}: because"
    assert status_of(OutcomeUnknown(f"{unknown}: because")).text == f"{unknown}: because"
    assert status_of(TimedOut("because")).text == "etcdserver: request timed out: because"
    assert status_of(TimeoutError(110, "of the system")).text == "etcdserver: request timed out"


@pytest.mark.parametrize("term", [1, 300])
@pytest.mark.parametrize("revision", [0, 5, 1 << 40])
@pytest.mark.parametrize("kind", ["put", "delete_range", "txn"])
async def test_a_response_is_cut_out_of_its_result(kind: str, revision: int, term: int) -> None:
    result = Result()
    response = getattr(result, kind)
    response.header.revision = revision
    if kind == "put":
        response.prev_kv.value = b"v" * 300
    elif kind == "delete_range":
        response.deleted = 2
    else:
        response.responses.add().response_put.header.revision = revision
    node = FakeNode(lambda batch: [result])
    node.term = term
    expected = type(response)()
    expected.CopyFrom(response)
    ours = executor(node)
    ours.fill(expected.header)
    assert await ours.respond(field_number(kind), b"") == expected.SerializeToString()


async def test_a_refused_request_has_no_response() -> None:
    node = FakeNode(lambda batch: [Result(failure=Failure(code=3, message="no"))])
    with pytest.raises(Refused, match="no"):
        await executor(node).respond(PUT, b"")
