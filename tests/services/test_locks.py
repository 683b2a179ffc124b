"""Locks and elections: one at a time, in order, and nobody whose lease is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

import connect_kv
from connect_kv import sync
from connect_kv.client.client import Client
from connect_kv.errors import Refused
from connect_kv.rpc import election_pb2, lock_pb2
from connect_kv.rpc.lease_pb2 import LeaseGrantRequest, LeaseGrantResponse
from connect_kv.services.caller import Caller
from connect_kv.services.lock_queue import LockQueue
from connect_kv.testing.processes import until
from tests.services.cluster import Member, configs, running
from tests.services.conftest import unary


@pytest.fixture
async def only(tmp_path: Path) -> AsyncIterator[Member]:
    async with running(configs(tmp_path, 1)) as (member,):
        yield member


@pytest.fixture
async def client(only: Member) -> AsyncIterator[Client]:
    async with connect_kv.connect(only.server.client_address) as client:
        yield client


async def contenders(client: Client, name: str, count: int) -> None:
    """Wait until there are so many."""

    async def there() -> bool:
        return len(await client.get_prefix(f"{name}/")) == count

    await until(there, 10, f"{count} contenders")


async def lock(member: Member, name: str, lease: int) -> lock_pb2.LockResponse:
    """As any client of etcd does it."""
    request = lock_pb2.LockRequest(name=name.encode(), lease=lease)
    return await member.call("/v3lockpb.Lock/Lock", request, lock_pb2.LockResponse)


async def test_a_lock_is_held_by_one_at_a_time_in_the_order_of_asking(client: Client) -> None:
    order: list[int] = []
    revisions: list[int] = []
    holders = 0

    async def work(number: int) -> None:
        nonlocal holders
        async with client.lock("name") as held:
            holders += 1
            assert holders == 1
            assert held.held
            order.append(number)
            revisions.append(held.revision)
            await asyncio.sleep(0)
            holders -= 1

    async with client.lock("name") as first, asyncio.TaskGroup() as tasks:
        revisions.append(first.revision)
        for number in range(10):
            tasks.create_task(work(number))
            await contenders(client, "name", number + 2)
        await first._give_up()
    assert order == list(range(10))
    assert revisions == sorted(revisions)
    assert not await client.get_prefix("name/")


async def test_a_waiter_whose_lease_expired_never_gets_the_lock(only: Member, client: Client) -> None:
    async with client.lock("name"):
        lease, _ = await client.grant_lease(100)
        waiting = asyncio.create_task(lock(only, "name", lease))
        await contenders(client, "name", 2)
        await client.revoke_lease(lease)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await waiting
        assert failed.value.code() is grpc.StatusCode.UNKNOWN
        assert failed.value.details() == "mutex: session is expired"


async def test_a_waiter_that_goes_away_leaves_the_queue(only: Member, client: Client) -> None:
    async with client.lock("name"):
        waiting = asyncio.create_task(lock(only, "name", 0))
        await contenders(client, "name", 2)
        waiting.cancel()
        await contenders(client, "name", 1)

        async def forgotten() -> bool:
            return len(await client.leases()) == 1

        await until(forgotten, 10, "the lease granted for it to be revoked")


async def test_who_asks_again_for_what_it_holds_and_goes_away_still_holds_it(
    only: Member, client: Client
) -> None:
    """At whichever moment its second call ends: the next one waits on."""
    lease, _ = await client.grant_lease(100)
    held = await lock(only, "name", lease)
    waiting = asyncio.create_task(lock(only, "name", 0))
    await contenders(client, "name", 2)
    lock_queue = only.server.services._lock_queue  # nearer than a call: its end can be timed
    for moment in range(40):
        again = asyncio.create_task(lock_queue.win(Caller(), b"name", lease, b"", nullcontext()))
        for _ in range(moment):
            await asyncio.sleep(0)
        again.cancel()
        with suppress(asyncio.CancelledError):
            await again
    await until_idle(lock_queue)
    assert await client.get(held.key) is not None
    assert not waiting.done()
    await only.call("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=held.key), lock_pb2.UnlockResponse)
    await waiting


async def until_idle(lock_queue: LockQueue) -> None:
    """Wait until it has cleaned up after everybody who went away."""

    async def idle() -> bool:
        return not lock_queue._running

    await until(idle, 10, "the cleaning up")


async def test_a_waiter_with_a_lease_of_its_own_that_goes_away_leaves_the_queue(
    only: Member, client: Client
) -> None:
    lease, _ = await client.grant_lease(100)
    async with client.lock("name"):
        waiting = asyncio.create_task(lock(only, "name", lease))
        await contenders(client, "name", 2)
        waiting.cancel()
        await contenders(client, "name", 1)
    assert lease in await client.leases()


async def test_the_same_lease_has_the_same_place(only: Member, client: Client) -> None:
    lease, _ = await client.grant_lease(100)
    first = await lock(only, "name", lease)
    assert first.key == f"name/{lease:x}".encode()
    assert (await lock(only, "name", lease)).key == first.key
    await only.call("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=first.key), lock_pb2.UnlockResponse)
    await only.call("/v3lockpb.Lock/Unlock", lock_pb2.UnlockRequest(key=first.key), lock_pb2.UnlockResponse)
    with pytest.raises(grpc.aio.AioRpcError, match="requested lease not found"):
        await lock(only, "name", 12345)


async def test_an_election_has_one_leader_and_observers_see_them_all(client: Client) -> None:
    seen: list[bytes] = []
    watched = client.election("name")

    async def observe() -> None:
        async with aclosing(watched.observe()) as leaders:
            async for leader in leaders:
                seen.append(leader.value)

    observing = asyncio.create_task(observe())
    assert await watched.leader() is None
    async with client.election("name", "one") as first, asyncio.TaskGroup() as tasks:
        second = client.election("name", "two")
        tasks.create_task(second.__aenter__())
        await contenders(client, "name", 2)
        found = await watched.leader()
        assert found is not None
        assert found.value == b"one"
        await first.proclaim("one again")
        await first._give_up()
    with pytest.raises(connect_kv.ConnectKvError):
        await first.proclaim("no longer")
    await second.proclaim("two again")

    async def all_seen() -> bool:
        return len(seen) == 4

    await until(all_seen, 10, "four changes")
    observing.cancel()
    assert seen == [b"one", b"one again", b"two", b"two again"]
    await second.__aexit__(None, None, None)
    assert await watched.leader() is None


async def test_who_does_not_lead_cannot_proclaim(client: Client) -> None:
    async with client.election("name", "one"):
        other = client.election("name")
        other.key, other.revision, other._lease = b"name/1", 2, await client.lease(10)
        with pytest.raises(Refused, match="election: not leader"):
            await other.proclaim("me")


async def test_locks_and_elections_for_threads(only: Member) -> None:
    def work() -> None:
        with sync.connect(only.server.client_address) as client:
            with client.lock("name") as held:
                assert held.held
                assert held.revision > 0
            with client.election("name", "me") as election:
                election.proclaim("still me")
                leader = election.leader()
                assert leader is not None
                assert leader.value == b"still me"

    await asyncio.to_thread(work)


async def refused(member: Member, path: str, request: Any) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await unary(member.channel, path)(request.SerializeToString())
    return failed.value.code(), failed.value.details()


async def test_a_negative_lease_names_the_key_as_other_clients_of_etcd_do(
    only: Member, client: Client
) -> None:
    """Otherwise the two are never in one queue."""
    for lease, key in ((-5, b"a/-5"), (-(2**63), b"b/-8000000000000000"), (2**63 - 1, b"c/7fffffffffffffff")):
        granted = LeaseGrantRequest(TTL=100, ID=lease)
        await only.call("/etcdserverpb.Lease/LeaseGrant", granted, LeaseGrantResponse)
        assert (await lock(only, key.decode()[0], lease)).key == key


async def test_headers_name_the_revision_of_the_call_itself(only: Member, client: Client) -> None:
    """As etcd's: that of a campaign is from before another value was put."""

    async def call(method: str, request: Any, answer: Any) -> Any:
        return await only.call(f"/v3electionpb.Election/{method}", request, answer)

    lease, _ = await client.grant_lease(100)
    candidate = election_pb2.CampaignRequest(name=b"e", lease=lease, value=b"one")
    first = await call("Campaign", candidate, election_pb2.CampaignResponse)
    assert first.header.revision == first.leader.rev == 2
    candidate.value = b"two"
    second = await call("Campaign", candidate, election_pb2.CampaignResponse)
    assert (second.header.revision, second.leader) == (2, first.leader)
    assert (await call("Campaign", candidate, election_pb2.CampaignResponse)).header.revision == 3
    said = election_pb2.ProclaimRequest(leader=first.leader, value=b"three")
    assert (await call("Proclaim", said, election_pb2.ProclaimResponse)).header.revision == 4
    assert (await lock(only, "l", lease)).header.revision == 5
    assert (await lock(only, "l", lease)).header.revision == 5
    assert (await lock(only, "e", lease)).header.revision == 5, "a lock leaves the value of its key alone"
    asked = election_pb2.LeaderRequest(name=b"e")
    assert (await call("Leader", asked, election_pb2.LeaderResponse)).header.revision == 5
    resigned = election_pb2.ResignRequest(leader=first.leader)
    assert (await call("Resign", resigned, election_pb2.ResignResponse)).header.revision == 6


async def test_what_a_lock_or_an_election_cannot_do_is_said_in_etcds_words(
    only: Member, client: Client
) -> None:
    """The codes are those of the call within, not UNKNOWN: docs/api.md says why."""
    no_lease = (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
    no_key = (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided")
    locks, elections = "/v3lockpb.Lock", "/v3electionpb.Election"
    assert await refused(only, f"{locks}/Lock", lock_pb2.LockRequest(name=b"a", lease=9)) == no_lease
    assert await refused(only, f"{locks}/Unlock", lock_pb2.UnlockRequest()) == no_key
    candidate = election_pb2.CampaignRequest(name=b"a", lease=9)
    assert await refused(only, f"{elections}/Campaign", candidate) == no_lease
    nobody = election_pb2.LeaderKey(name=b"a", rev=1)
    resigned = election_pb2.ResignRequest(leader=nobody)
    assert await refused(only, f"{elections}/Resign", resigned) == no_key
    said = election_pb2.ProclaimRequest(leader=nobody)
    assert await refused(only, f"{elections}/Proclaim", said) == no_key
