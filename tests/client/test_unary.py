"""Outside a session: what may be sent again is, what may not is reported."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from connect_kv import errors
from connect_kv.client.client import connect
from connect_kv.client.failures import Fate, fate
from tests.client.fake_server import FakeCluster, FakeMember, once


async def test_a_read_goes_to_another_member(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    members[0].fault = members[1].fault = once("answered")
    async with connect(endpoints, session=False) as client:
        assert await client.get_prefix("a") == []
    assert [member.calls["RangeRequest"] for member in members] == [1, 1, 0] or sum(
        member.calls["RangeRequest"] for member in members
    ) >= 2


async def test_a_write_whose_answer_is_lost_is_not_repeated(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    members[0].fault = once("answered")
    async with connect(endpoints, session=False) as client:
        with pytest.raises(errors.OutcomeUnknown):
            await client.put("a", "1")
    assert cluster.executed == {b"a": 1}


async def test_a_write_that_certainly_was_not_done_is_repeated(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    members[0].unary_failure = grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader"
    await members[1].stop()
    async with connect(endpoints, session=False) as client:
        await client.put("a", "1")
    assert cluster.executed == {b"a": 1}


async def test_a_refusal_is_final_and_keeps_code_and_text(
    cluster: FakeCluster, members: list[FakeMember], endpoints: str
) -> None:
    members[0].unary_failure = grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found"
    async with connect(endpoints, session=False) as client:
        with pytest.raises(errors.Refused, match="requested lease not found") as caught:
            await client.put("a", "1")
    assert caught.value.code == 5
    assert sum(member.calls["PutRequest"] for member in members) == 1


async def test_a_compacted_revision_has_its_own_error(members: list[FakeMember], endpoints: str) -> None:
    members[0].unary_failure = (
        grpc.StatusCode.OUT_OF_RANGE,
        "etcdserver: mvcc: required revision has been compacted",
    )
    async with connect(endpoints) as client:
        with pytest.raises(errors.Compacted):
            await client.range("a")


async def test_status_asks_the_member_that_is_named(members: list[FakeMember], endpoints: str) -> None:
    async with connect(endpoints) as client:
        await client.status(members[2].address)
        with pytest.raises(errors.ConfigError):
            await client.status("127.0.0.1:1")
    assert [member.calls["StatusRequest"] for member in members] == [0, 0, 1]


@pytest.mark.parametrize("text", ["", "localhost", "localhost:", ":2379", "localhost:notaport", "a:99999"])
def test_a_malformed_endpoint_is_named(text: str) -> None:
    with pytest.raises(errors.ConfigError, match="HOST:PORT"):
        connect(text)


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (14, "etcdserver: no leader", Fate.NOTHING_DONE),
        (14, "etcdserver: no leader: 1 of 3 voters answers, 2 needed", Fate.NOTHING_DONE),
        (14, "failed to connect to all addresses; last error: ...", Fate.NOTHING_DONE),
        (14, "errors resolving n9:2379: [field:hostname lookup error:...]", Fate.NOTHING_DONE),
        (8, "etcdserver: too many requests", Fate.NOTHING_DONE),
        (14, "etcdserver: server stopped", Fate.UNKNOWN),
        (14, "Socket closed", Fate.UNKNOWN),
        (4, "Deadline Exceeded", Fate.UNKNOWN),
        (8, "etcdserver: mvcc: database space exceeded", Fate.REFUSED),
        (3, "etcdserver: key is not provided", Fate.REFUSED),
    ],
)
def test_what_a_failure_says_of_the_effect(code: int, text: str, expected: Fate) -> None:
    assert fate(code, text) is expected


async def test_a_server_that_is_none_for_clients_is_named() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for session in (True, False):
        async with connect(f"127.0.0.1:{port}", session=session) as client:
            with pytest.raises(errors.Refused, match=f"127.0.0.1:{port} does not serve clients"):
                await client.put("a", "1")
    await server.stop(None)
