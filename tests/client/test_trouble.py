"""What a caller is told when nobody could help: who refuses, who is silent, who has no leader."""

from __future__ import annotations

import pytest

from connect_kv import errors
from connect_kv.client import trouble
from connect_kv.client.client import connect
from connect_kv.client.failures import CallFailed, Fate, fate
from connect_kv.rpc.maintenance_pb2 import StatusResponse
from tests.client.fake_server import FakeMember

REASON = "no leader: 1 of 3 voters answers, 2 needed; n1, n3 refuse connections"
REFUSED = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused (111)"
)


@pytest.mark.parametrize(
    ("code", "text", "words"),
    [
        (14, REFUSED, trouble.REFUSES),
        (14, "DNS resolution failed for nowhere:1: C-ares status is not ARES_SUCCESS", trouble.UNRESOLVED),
        (14, "failed to connect to all addresses; Trying to connect an http1.x server", trouble.HTTP),
        (12, "Method not found!", trouble.NOT_FOR_CLIENTS),
        (4, "Deadline Exceeded", trouble.SILENT),
        (2, "Stream removed", trouble.BROKE),
        (14, "Socket closed", trouble.BROKE),
        (14, "failed to connect to all addresses; x: No route to host", "cannot connect: No route to host"),
        (14, "etcdserver: no leader", "no leader"),
        (14, f"etcdserver: {REASON}", REASON),
        (13, "", "failed with status 13"),
    ],
)  # fmt: skip
def test_the_words_are_for_people(code: int, text: str, words: str) -> None:
    assert trouble.of(CallFailed(code, text)) == words


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ([("a", trouble.REFUSES)], "a refuses connections"),
        ([("a", trouble.REFUSES), ("b", trouble.SILENT), ("c", trouble.REFUSES)],
         "a, c refuse connections; b does not answer"),
        ([("a", trouble.REFUSES), ("b", REASON), ("c", "")], f"{REASON}; a refuses connections"),
        ([("a", "no leader"), ("b", "no leader")], "a, b: no leader"),
        ([("a", "no leader: x"), ("b", "no leader: y")], "a: no leader: x; b: no leader: y"),
        ([("a", "")], ""),
    ],
)  # fmt: skip
def test_members_with_the_same_trouble_are_told_together(members: list[tuple[str, str]], line: str) -> None:
    assert trouble.account(members) == line


def test_a_stream_that_the_library_removed_is_no_answer_of_the_cluster() -> None:
    assert fate(2, "Stream removed") is Fate.UNKNOWN
    assert fate(14, f"etcdserver: {REASON}") is Fate.NOTHING_DONE


async def failing(endpoints: str, session: bool, *, write: bool) -> str:
    async with connect(endpoints, session=session, timeout=2) as client:
        with pytest.raises((errors.Unavailable, errors.OutcomeUnknown)) as caught:
            await (client.put("a", "1") if write else client.get("a"))
    return str(caught.value)


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("write", [True, False])
async def test_nobody_can_be_reached(session: bool, write: bool) -> None:
    text = await failing("127.0.0.1:1,127.0.0.1:2", session, write=write)
    assert "127.0.0.1:1, 127.0.0.1:2 refuse connections" in text


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("write", [True, False])
async def test_the_one_that_answers_says_why_there_is_no_leader(
    session: bool, write: bool, members: list[FakeMember], endpoints: str
) -> None:
    """It keeps the call waiting for a leader, as a member does, longer than the caller waits."""
    await members[0].stop()
    await members[2].stop()
    members[1].freeze()
    members[1].status = StatusResponse(errors=[f"etcdserver: {REASON}"])
    text = await failing(endpoints, session, write=write)
    refused = f"{members[0].address}, {members[2].address} refuse connections"
    assert f"{REASON}; {refused}" in text


async def test_a_watch_that_nobody_takes_says_why_too(members: list[FakeMember], endpoints: str) -> None:
    """A watch is refused at once without a leader, in few words; Status has the reason."""
    await members[0].stop()
    members[1].fault = members[2].fault = lambda point: point == "head"
    for member in members[1:]:
        member.refusal = "etcdserver: no leader"
        member.status = StatusResponse(errors=["etcdserver: no leader", REASON])
    async with connect(endpoints, session=False, timeout=2) as client:
        with pytest.raises(errors.Unavailable) as caught:
            await client.watch("a").__aenter__()
    assert f"{REASON}; {members[0].address} refuses connections" in str(caught.value)


@pytest.mark.parametrize("session", [True, False])
async def test_a_member_that_is_well_again_is_not_accused(
    session: bool, members: list[FakeMember], endpoints: str
) -> None:
    await members[0].stop()
    async with connect(endpoints, session=session, timeout=0.6) as client:
        await client.put("a", "1")
        await members[0].start()
        members[1].freeze()
        await members[2].stop()
        with pytest.raises(errors.Unavailable) as caught:
            await client.get("a", timeout=1.5)
    told = str(caught.value)
    assert f"{members[1].address} does not answer" in told
    assert f"{members[2].address} refuses connections" in told
    assert members[0].address not in told
