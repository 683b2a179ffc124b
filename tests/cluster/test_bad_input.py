"""Requests that cannot be right, clusters that cannot answer: the right status, and nothing replicated."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

import connect_kv
from connect_kv.client.failures import CallFailed
from connect_kv.client.stubs import Stubs
from connect_kv.rpc.cluster_pb2 import MemberListRequest
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest
from connect_kv.rpc.machine_pb2 import MachineCallRequest
from connect_kv.testing.processes import NodeProcess, ProcessCluster, until

MACHINES = {"counter": "tests.cluster.machines:Counter"}
LIMIT = 1536 * 1024
"""Bytes of the largest request that is taken."""


@asynccontextmanager
async def stubs(node: NodeProcess) -> AsyncIterator[Stubs]:
    """The calls of any gRPC client, with nothing of ours in between."""
    async with grpc.aio.insecure_channel(node.client_address) as channel:
        yield Stubs(channel)


async def failure(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """Status and text of a call that must fail."""
    with pytest.raises(CallFailed) as caught:
        await call
    (code,) = (code for code in grpc.StatusCode if code.value[0] == caught.value.code)
    return code, caught.value.text


async def applied_everywhere(cluster: ProcessCluster) -> set[float | None]:
    return {await node.metric("connect_kv_raft_applied_index") for node in cluster.nodes}


async def highest_term(cluster: ProcessCluster) -> float:
    found = [await node.metric("connect_kv_raft_term") for node in cluster.nodes]
    return max(term for term in found if term is not None)


async def one_index(cluster: ProcessCluster) -> float:
    """The last applied entry, once all nodes have said who they are, founded the machine, and agree."""

    async def agreed() -> float | None:
        async with stubs(cluster.nodes[0]) as calls:
            members = (await calls.member_list(MemberListRequest(linearizable=False), timeout=5)).members
        founded = [
            await node.metric('connect_kv_machine_version{machine="counter"}') for node in cluster.nodes
        ]
        if not all(member.clientURLs for member in members) or not all(founded):
            return None
        first = await applied_everywhere(cluster)
        second = await applied_everywhere(cluster)
        return first.pop() if first == second and len(first) == 1 else None

    return await until(agreed, 20, "all nodes to apply the same entry")


async def test_bad_requests_are_refused_by_name_and_nothing_is_replicated(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, machines=MACHINES) as cluster:
        leader = await cluster.leader()
        follower = next(node for node in cluster.nodes if node is not leader)
        before, term = await one_index(cluster), await highest_term(cluster)
        for node in (leader, follower):
            async with stubs(node) as calls:
                for call, code, words in bad_calls(calls):
                    assert_refused(await failure(call), code, words)
        # A leader that is elected meanwhile begins its term with an entry of its own, in a term of its own.
        assert await one_index(cluster) - before <= await highest_term(cluster) - term
        async with stubs(follower) as calls:
            await calls.put(PutRequest(key=b"k", value=b"v" * (LIMIT - 100)), timeout=20)
            answer = await calls.range(RangeRequest(key=b"k"), timeout=20)
            assert len(answer.kvs[0].value) == LIMIT - 100


def assert_refused(found: tuple[grpc.StatusCode, str], code: grpc.StatusCode, words: str) -> None:
    assert found[0] is code, found
    assert words in found[1]


def bad_calls(calls: Stubs) -> list[tuple[Awaitable[object], grpc.StatusCode, str]]:
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    empty, large = "etcdserver: key is not provided", "etcdserver: request is too large"
    nested = TxnRequest(success=[RequestOp(request_put=PutRequest(value=b"v"))])

    def machine(name: str, method: str, arguments: str) -> Awaitable[object]:
        return calls.machine_call(MachineCallRequest(machine=name, method=method, json=arguments), timeout=10)

    return [
        (calls.put(PutRequest(value=b"v"), timeout=10), invalid, empty),
        (calls.range(RangeRequest(), timeout=10), invalid, empty),
        (calls.delete_range(DeleteRangeRequest(), timeout=10), invalid, empty),
        (calls.txn(nested, timeout=10), invalid, empty),
        (calls.put(PutRequest(key=b"k", value=b"v" * LIMIT), timeout=10), invalid, large),
        # So large that it is not even read.
        (calls.put(PutRequest(key=b"k", value=b"v" * 3 * LIMIT), timeout=10),
         grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
        (machine("nobody", "increment", "{}"), missing, "unknown machine 'nobody'; there is counter"),
        (machine("counter", "explode", "{}"), missing, "counter: unknown method 'explode'"),
        (machine("counter", "increment", '{"by": "five"}'), invalid, "by"),
        (machine("counter", "increment", '{"of": 5}'), invalid, "of"),
        (machine("counter", "increment", "{"), invalid, "increment"),
    ]  # fmt: skip


async def test_the_python_client_says_the_same_through_its_session(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path, size=1, machines=MACHINES) as cluster, cluster.client() as client:
        await client.put("k", "v")
        before = await one_index(cluster)
        with pytest.raises(connect_kv.Refused, match="key is not provided"):
            await client.put("", "v")
        with pytest.raises(connect_kv.RequestTooLarge):
            await client.put("k", b"v" * LIMIT)
        with pytest.raises(connect_kv.BadCall, match="unknown machine 'nobody'"):
            await client.call_json("nobody", "increment")
        assert await one_index(cluster) == before


async def test_without_a_leader_a_call_waits_until_its_deadline_then_is_unavailable(tmp_path: Path) -> None:
    async with ProcessCluster(tmp_path) as cluster:
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        await asyncio.gather(leader.kill(), others[0].kill())
        alone = others[1]
        loop = asyncio.get_running_loop()
        async with connect_kv.connect(alone.client_address, session=False) as client:
            started = loop.time()
            with pytest.raises(connect_kv.Unavailable):
                await client.get("k", timeout=3)
            assert loop.time() - started >= 2.7
        dead = [node.client_address for node in cluster.nodes if node is not alone]
        for session in (True, False):
            everybody = ",".join(node.client_address for node in cluster.nodes)
            async with connect_kv.connect(everybody, session=session, timeout=3) as client:
                for call in (client.get("k"), client.put("k", "v")):
                    with pytest.raises((connect_kv.Unavailable, connect_kv.OutcomeUnknown)) as caught:
                        await call
                    told = str(caught.value)
                    assert "no leader" in told
                    assert f"{', '.join(dead)} refuse connections" in told
        async with stubs(alone) as calls:
            write, read = await asyncio.gather(
                failure(calls.put(PutRequest(key=b"k"), timeout=60)),
                failure(calls.range(RangeRequest(key=b"k"), timeout=60)),
            )
            missing = ", ".join(sorted(node.name for node in cluster.nodes if node is not alone))
            why = f"no leader: 1 of 3 voters answers, 2 needed; {missing} refuse connections"
            assert write == read == (grpc.StatusCode.UNAVAILABLE, f"etcdserver: {why}")
            # A local read needs no leader.
            await calls.range(RangeRequest(key=b"k", serializable=True), timeout=5)
        async with connect_kv.connect(alone.client_address, session=False) as client:
            # One that comes back in time is waited for: nothing was in doubt, so asking again was safe.
            waiting = asyncio.ensure_future(client.put("k", "v", timeout=60))
            await leader.start()
            await waiting


async def test_a_write_of_unknown_fate_says_so(tmp_path: Path) -> None:
    """The leader has it in its log; whether it is committed is decided by members that do not answer."""
    async with ProcessCluster(tmp_path) as cluster:
        leader = await cluster.leader()
        others = [node for node in cluster.nodes if node is not leader]
        async with stubs(leader) as calls:
            await calls.put(PutRequest(key=b"before", value=b"v"), timeout=20)
            for node in others:
                node.signal(signal.SIGSTOP)
            writing = asyncio.ensure_future(failure(calls.put(PutRequest(key=b"k", value=b"v"), timeout=30)))
            async with connect_kv.connect(leader.client_address, session=False) as client:
                with pytest.raises(connect_kv.OutcomeUnknown):
                    await client.put("k2", "v", timeout=3)
            code, text = await writing
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "its outcome is unknown" in text
            for node in others:
                node.signal(signal.SIGCONT)
        async with cluster.client() as client:
            await client.put("after", "v", timeout=30)
