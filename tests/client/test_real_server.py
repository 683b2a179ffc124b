"""The client against a real node in this process: each call end to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connect_kv import errors
from connect_kv.client import txn
from connect_kv.client import watch as watches
from connect_kv.client.client import Client, connect
from connect_kv.config import ServerConfig
from connect_kv.framework.replicated import Replicated, command, query
from connect_kv.server.composition import KvServer
from connect_kv.statemachine.hosted import ReplicatedMachine
from connect_kv.testing.processes import until
from tests.doors import GRPC_SERVER


class Tally(Replicated):
    def __init__(self) -> None:
        self.total = 0

    @command
    def add(self, by: int = 1) -> int:
        self.total += by
        return self.total

    @command
    def refuse(self, why: str) -> None:
        raise ValueError(why)

    @query
    def value(self) -> int:
        return self.total

    def neither(self) -> int:
        return 0


@asynccontextmanager
async def node(directory: Path, port: int = 0, auto_compaction: str = "") -> AsyncIterator[KvServer]:
    server = KvServer(
        ServerConfig(
            data_dir=directory / "data",
            listen_client=f"127.0.0.1:{port}",
            listen_peer="127.0.0.1:1",
            listen_http="",
            heartbeat_ms=20,
            election_ms=100,
            tick_ms=20,
            auto_compaction=auto_compaction,
            grpc_server=GRPC_SERVER,
        ),
        {"tally": ReplicatedMachine(Tally())},
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with node(tmp_path) as server, connect(server.client_address) as client:
        yield client


async def test_keys(client: Client) -> None:
    first = await client.put("a", "1")
    await client.put("b", b"\xff", prev_kv=True)
    found = await client.get("a")
    assert found is not None
    assert (found.value, found.mod_revision) == (b"1", first.header.revision)
    assert await client.get("missing") is None
    assert [kv.key for kv in await client.get_prefix("")] == [b"a", b"b"]
    assert (await client.range("a", count_only=True, prefix=True)).count == 1
    await client.put("a", "2")
    old = await client.get("a", revision=first.header.revision)
    assert old is not None
    assert old.value == b"1"
    assert (await client.delete("", prefix=True)).deleted == 2


async def test_transactions(client: Client) -> None:
    async def take(who: str) -> bool:
        answer = await client.transaction(
            compare=[txn.version("lock", "=", 0)],
            success=[txn.put("lock", who)],
            failure=[txn.get("lock")],
        )
        return answer.succeeded

    assert await take("ada")
    assert not await take("bob")
    with pytest.raises(errors.Refused, match="duplicate key"):
        await client.transaction(success=[txn.put("k", "1"), txn.put("k", "2")])


async def test_compaction_is_seen_by_reads_and_watches(client: Client) -> None:
    for i in range(5):
        await client.put("k", str(i))
    await client.compact(4)
    with pytest.raises(errors.Compacted):
        await client.get("k", revision=2)
    async with client.watch("k", start_revision=2) as watch:
        with pytest.raises(errors.Compacted):
            await anext(watch)


async def test_a_watch_sees_history_and_what_follows(client: Client) -> None:
    for i in range(3):
        await client.put(f"k{i}", "v")
    async with client.watch("k", prefix=True, start_revision=2) as watch:
        await client.delete("k0")
        async with asyncio.timeout(60):
            seen = [await anext(watch) for _ in range(4)]
    assert [event.kv.mod_revision for event in seen] == [2, 3, 4, 5]


async def test_a_lease_takes_its_keys_along(client: Client) -> None:
    async with client.lease(5) as lease:
        await client.put("k", "v", lease=lease)
        attach = [txn.put("t", "v", lease=lease)]
        assert (await client.transaction([txn.lease("k", "=", lease)], attach)).succeeded
        left = await client.lease_time_to_live(lease.id, keys=True)
        assert list(left.keys) == [b"k", b"t"]
        assert await client.leases() == [lease.id]
        assert await client.renew_lease(lease.id) == 5
    assert await client.get("k") is None
    with pytest.raises(errors.Refused, match="lease not found"):
        await client.put("k", "v", lease=lease.id)


async def test_history_is_compacted_by_itself_if_the_configuration_says_so(tmp_path: Path) -> None:
    async def compacted(client: Client) -> bool:
        try:
            await client.get("k", revision=2)
        except errors.Compacted:
            return True
        return False

    async with node(tmp_path, auto_compaction="1s") as server, connect(server.client_address) as client:
        await client.put("k", "1")
        await client.put("k", "2")
        await until(lambda: compacted(client), 20, "the first revision to be compacted")
        found = await client.get("k")
        assert found is not None
        assert found.value == b"2"


async def test_machine_calls_are_typed_and_their_errors_named(client: Client) -> None:
    tally = client.machine("tally", Tally)
    total: int = await tally.call(Tally.add, by=5)
    assert total + await tally.call(Tally.add, 2) == 12
    assert await tally.call(Tally.value) == 7
    assert await client.call_json("tally", "add", '{"by": 1}') == "8"
    with pytest.raises(errors.CommandFailed, match="no thanks") as failed:
        await tally.call(Tally.refuse, why="no thanks")
    assert (failed.value.type, failed.value.message) == ("ValueError", "no thanks")
    with pytest.raises(errors.CommandFailed) as failed:
        await client.call_json("tally", "refuse", '{"why": "not so"}')
    assert (failed.value.type, failed.value.message) == ("ValueError", "not so")
    with pytest.raises(errors.BadCall, match="by"):
        await tally.call(Tally.add, by="five")  # type: ignore[arg-type]
    with pytest.raises(errors.BadCall, match="neither"):
        await tally.call(Tally.neither)
    with pytest.raises(errors.BadCall, match="nobody"):
        await client.machine("nobody", Tally).call(Tally.add)


async def test_a_thousand_callers_each_count_once(client: Client) -> None:
    tally = client.machine("tally", Tally)
    totals = await asyncio.gather(*(tally.call(Tally.add) for _ in range(1000)))
    assert sorted(totals) == list(range(1, 1001))


async def test_status_and_members(client: Client) -> None:
    await client.put("a", "1")
    status = await client.status()
    assert status.leader == status.header.member_id
    (member,) = await client.members()
    assert status.header.member_id == member.ID


async def test_a_session_and_a_watch_outlive_a_restart(tmp_path: Path) -> None:
    async with node(tmp_path) as server:
        address = server.client_address
        client = await connect(address, timeout=20).__aenter__()
        tally = client.machine("tally", Tally)
        watch = await client.watch("k", prefix=True).__aenter__()
        assert await tally.call(Tally.add) == 1
        await client.put("k1", "v")
    calls = [asyncio.ensure_future(tally.call(Tally.add)) for _ in range(50)]
    await asyncio.sleep(0)
    async with node(tmp_path, int(address.rpartition(":")[2])):
        assert sorted(await asyncio.gather(*calls)) == list(range(2, 52))
        await client.put("k2", "v")
        async with asyncio.timeout(60):
            assert [(await anext(watch)).kv.key for _ in range(2)] == [b"k1", b"k2"]
        await watch.close()
        await client.close()


async def test_a_quiet_watch_outlives_a_compaction_and_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "PROGRESS_SECONDS", 0.05)
    async with node(tmp_path) as server:
        address = server.client_address
        client = await connect(address, timeout=20).__aenter__()
        watch = await client.watch("quiet").__aenter__()
        event = asyncio.ensure_future(anext(watch))
        for number in range(20):
            written = await client.put("busy", str(number))

        async def confirmed() -> bool:
            return watch.next_revision > written.header.revision

        await until(confirmed, 10, "the watch to be told that it missed nothing")
        await client.compact(written.header.revision)
    async with node(tmp_path, int(address.rpartition(":")[2])):
        await client.put("quiet", "v")
        assert (await asyncio.wait_for(event, 60)).kv.value == b"v"
        await watch.close()
        await client.close()


async def test_the_unary_door_does_the_same(tmp_path: Path) -> None:
    async with node(tmp_path) as server, connect(server.client_address, session=False) as client:
        await client.put("a", "1")
        found = await client.get("a")
        assert found is not None
        tally = client.machine("tally", Tally)
        assert await tally.call(Tally.add, by=3) == 3
        assert await tally.call(Tally.value) == 3
        async with client.lease(5) as lease:
            assert await client.leases() == [lease.id]
        assert (await client.delete("a")).deleted == 1
        assert (await client.transaction(success=[txn.get("a")])).succeeded
        await client.compact(2)
