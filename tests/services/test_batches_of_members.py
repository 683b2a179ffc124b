"""Calls that come together at real members: each hears what it would alone, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from connect_kv.etcd_errors import Code
from connect_kv.frontend.grpc.router import MethodRoute
from connect_kv.frontend.grpc.services import SERVICES
from connect_kv.rpc import auth_pb2, kv_pb2, lease_pb2, machine_pb2
from connect_kv.rpc.kv_pb2 import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
)
from connect_kv.server.composition import KvServer
from connect_kv.statemachine.hosted import ReplicatedMachine
from connect_kv.testing.simulated import SimCluster
from tests.auth.conftest import PASSWORDS, guarded, server_at, user
from tests.framework.machines import Counter
from tests.services.batches import Failed, FakeCall, Outcome, alone, begin, calls, together
from tests.services.conftest import until

ROUNDS = 120
PUTS = RequestOp(request_put=PutRequest(key=b"k4"))
PATHS = {
    "Put": "/etcdserverpb.KV/Put",
    "DeleteRange": "/etcdserverpb.KV/DeleteRange",
    "Txn": "/etcdserverpb.KV/Txn",
    "Range": "/etcdserverpb.KV/Range",
    "LeaseGrant": "/etcdserverpb.Lease/LeaseGrant",
    "LeaseRevoke": "/etcdserverpb.Lease/LeaseRevoke",
    "Call": "/connect_kv.v1.Machine/Call",
}
ANSWERS: Mapping[str, type[Any]] = {
    "Put": kv_pb2.PutResponse,
    "DeleteRange": kv_pb2.DeleteRangeResponse,
    "Txn": kv_pb2.TxnResponse,
    "Range": kv_pb2.RangeResponse,
    "LeaseGrant": lease_pb2.LeaseGrantResponse,
    "LeaseRevoke": lease_pb2.LeaseRevokeResponse,
    "Call": machine_pb2.MachineCallResponse,
}


class Requests:
    """Random ones, good and bad, over a few keys and leases."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def batch(self) -> tuple[str, list[Message | bytes]]:
        """A method, and calls of it."""
        method = self._rng.choice(list(PATHS))
        return method, [self._one(method) for _ in range(self._rng.randrange(1, 12))]

    def _one(self, method: str) -> Message | bytes:
        rng = self._rng
        if rng.random() < 0.05:
            return b"\xff"
        match method:
            case "Put":
                return self._put()
            case "DeleteRange":
                return DeleteRangeRequest(key=self._key(), range_end=self._end(), prev_kv=rng.random() < 0.5)
            case "Range":
                return self._range()
            case "Txn":
                compare = Compare(key=self._key() or b"k", target=Compare.VERSION, version=rng.randrange(3))
                # Each may put: one that only reads has a task of its own, and its place is not said.
                branches = [[self._op(), self._op(), PUTS] for _ in range(2)]
                return TxnRequest(compare=[compare], success=branches[0], failure=branches[1])
            case "LeaseGrant":
                return lease_pb2.LeaseGrantRequest(ID=rng.randrange(1, 4), TTL=rng.choice((100, 10**12)))
            case "LeaseRevoke":
                return lease_pb2.LeaseRevokeRequest(ID=rng.randrange(1, 4))
            case _:
                name = rng.choice(("counter", "counter", "counter", "nobody"))
                call, given = rng.choice(
                    (
                        ("increment", '{"by":2}'),
                        ("increment", '{"by":"x"}'),
                        ("increment", ""),
                        ("no", ""),
                    )
                )
                return machine_pb2.MachineCallRequest(machine=name, method=call, json=given)

    def _put(self) -> PutRequest:
        rng = self._rng
        return PutRequest(
            key=self._key(),
            value=b"v%d" % rng.randrange(9),
            lease=rng.choice((0, 0, 0, 1, 2)),
            prev_kv=rng.random() < 0.2,
            ignore_value=rng.random() < 0.1,
            ignore_lease=rng.random() < 0.1,
        )

    def _range(self) -> RangeRequest:
        rng = self._rng
        return RangeRequest(
            key=self._key(),
            range_end=self._end(),
            limit=rng.choice((0, 0, 1)),
            serializable=rng.random() < 0.3,
            revision=rng.choice((0, 0, 0, 1, 10**6)),
        )

    def _op(self) -> RequestOp:
        if self._rng.random() < 0.5:
            return RequestOp(request_range=RangeRequest(key=b"k", range_end=b"l"))
        return RequestOp(request_put=PutRequest(key=self._key() or b"k", value=b"t"))

    def _key(self) -> bytes:
        return self._rng.choice((b"k1", b"k2", b"k3", b""))

    def _end(self) -> bytes:
        return self._rng.choice((b"", b"", b"l", b"\0"))


def plain(method: str, outcome: Outcome) -> Message | Failed:
    """Without what differs from cluster to cluster."""
    if isinstance(outcome, Failed):
        return outcome
    answer: Any = ANSWERS[method].FromString(outcome)
    assert answer.header.cluster_id
    assert answer.header.member_id
    assert answer.header.raft_term
    for name in ("cluster_id", "member_id", "raft_term"):
        answer.header.ClearField(name)
    found: Message = answer
    return found


def route(server: KvServer, method: str) -> MethodRoute:
    return server.services.router.route(PATHS[method])


async def test_together_they_hear_what_they_hear_one_by_one(tmp_path: Path) -> None:
    """Two clusters of one: the same requests in the same order, at one all of a kind at once. What has a
    task of its own, such as a large range, may come before or behind what came with it: here none writes.
    """
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(
                server_at(tmp_path / name, {"counter": ReplicatedMachine(Counter())})
            )
            for name in made(tmp_path, "one", "other")
        ]
        requests = Requests(1)
        for _ in range(ROUNDS):
            method, batch = requests.batch()
            came = await together(route(one, method), calls(batch))
            expected = [await alone(route(other, method), call) for call in calls(batch)]
            assert [plain(method, outcome) for outcome in came] == [
                plain(method, outcome) for outcome in expected
            ], (method, batch)
        (last,) = await together(route(one, "Range"), calls([RangeRequest(key=b"k1")]))
        assert isinstance(last, bytes)
        assert RangeResponse.FromString(last).header.revision > ROUNDS / 2


def made(directory: Path, *names: str) -> Sequence[str]:
    for name in names:
        (directory / name).mkdir(mode=0o700)
    return names


async def test_every_method_that_takes_many_asks_who_calls(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (server, _root):
        asked = 0
        for service in SERVICES:
            for method in service.methods:
                found = server.services.router.route(f"/{service.full_name}/{method.name}")
                if found.batch is None:
                    continue
                asked += 1
                request = REQUESTS[method.name]
                nobody, stranger = await together(
                    found, [*calls([request]), *calls([request], (("token", "made up"),))]
                )
                assert nobody == Failed(Code.INVALID_ARGUMENT, "etcdserver: user name is empty"), method.name
                assert stranger == Failed(Code.UNAUTHENTICATED, "etcdserver: invalid auth token"), method.name
        assert asked == len(REQUESTS)


REQUESTS: Mapping[str, Message] = {
    "Put": PutRequest(key=b"k"),
    "DeleteRange": DeleteRangeRequest(key=b"k"),
    "Txn": TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"k"))]),
    "Range": RangeRequest(key=b"k"),
    "LeaseGrant": lease_pb2.LeaseGrantRequest(TTL=10),
    "LeaseRevoke": lease_pb2.LeaseRevokeRequest(ID=1),
    "Call": machine_pb2.MachineCallRequest(machine="m", method="m"),
}


async def test_each_is_judged_by_its_own_caller_and_again_where_rights_change_meanwhile(
    tmp_path: Path,
) -> None:
    """The change stands in the log before them: they were judged by the rights of before."""
    async with guarded(tmp_path) as (server, _root):
        al = (("token", await token(server, "al")),)
        chief = (("token", await token(server, "root")),)
        puts = route(server, "Put")
        mine, not_mine, by_root = await together(
            puts,
            [
                *calls([PutRequest(key=b"k1"), PutRequest(key=b"z")], al),
                *calls([PutRequest(key=b"z")], chief),
            ],
        )
        assert isinstance(mine, bytes)
        assert not_mine == Failed(Code.PERMISSION_DENIED, "etcdserver: permission denied")
        assert isinstance(by_root, bytes)

        revoke = server.services.router.route("/etcdserverpb.Auth/UserRevokeRole")
        revocation = auth_pb2.AuthUserRevokeRoleRequest(name="al", role="k")
        revoking = asyncio.create_task(alone(revoke, *calls([revocation], chief)))
        await asyncio.sleep(0)  # it is proposed
        sent = [*calls([PutRequest(key=b"k2")], al), *calls([PutRequest(key=b"k3")], chief)]
        begin(puts, sent)
        assert not any(call.outcomes for call in sent)  # judged, and let through
        assert isinstance(await revoking, bytes)
        await until(lambda: all(call.outcomes for call in sent))
        assert sent[0].outcome == Failed(Code.PERMISSION_DENIED, "etcdserver: permission denied")
        assert isinstance(sent[1].outcome, bytes)
        found = await together(route(server, "Range"), calls([RangeRequest(key=b"k2")], chief))
        assert isinstance(found[0], bytes)
        assert not RangeResponse.FromString(found[0]).count


async def token(server: KvServer, name: str) -> str:
    async with user(server, name, session=False) as client:
        return await client.auth.login(name, PASSWORDS[name])


class Sent:
    """Puts that were handed over, and what became of them."""

    def __init__(self) -> None:
        self.calls: list[FakeCall] = []

    def send(self, to: MethodRoute, count: int) -> None:
        some = calls(PutRequest(key=b"k%d" % (len(self.calls) + at), value=b"v") for at in range(count))
        self.calls += some
        begin(to, some)

    @property
    def ended(self) -> bool:
        return all(call.outcomes for call in self.calls)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("follower", [False, True], ids=["at the leader", "at a follower"])
def test_when_the_leader_is_lost_each_is_told_once_and_what_was_acknowledged_is_there(
    seed: int, follower: bool
) -> None:
    cluster = SimCluster(members=3, seed=seed)

    async def scenario() -> None:
        leader = await cluster.leader()
        asked = next(name for name in cluster.members if (name != leader) == follower)
        puts = cluster._host(asked).route(PATHS["Put"])
        sent = Sent()
        rng = random.Random(seed)
        for _ in range(20):
            sent.send(puts, rng.randrange(1, 40))
            await cluster.advance(rng.random() / 500)
        if follower:
            await cluster.crash(leader)
        else:
            cluster.isolate(leader)
        for _ in range(20):
            sent.send(puts, rng.randrange(1, 40))
            await cluster.advance(rng.random() / 5)
        cluster.heal()
        while not sent.ended:
            await cluster.advance(0.1)
        assert all(len(call.outcomes) == 1 for call in sent.calls)
        told = {call.outcome.code for call in sent.calls if isinstance(call.outcome, Failed)}
        assert told <= {Code.UNAVAILABLE}
        good = [call for call in sent.calls if isinstance(call.outcome, bytes)]
        assert len(good) > len(sent.calls) / 4
        revisions = [PutResponse.FromString(bytes(call.outcome)).header.revision for call in good]  # type: ignore[arg-type]
        assert len(set(revisions)) == len(revisions)
        reads = calls(RangeRequest(key=PutRequest.FromString(call.message).key) for call in good)
        begin(cluster._host(asked).route(PATHS["Range"]), reads)
        while not all(call.outcomes for call in reads):
            await cluster.advance(0.1)
        for read, revision in zip(reads, revisions, strict=True):
            assert isinstance(read.outcome, bytes), read.outcome
            (kv,) = RangeResponse.FromString(read.outcome).kvs
            assert kv.mod_revision == revision

    cluster.run(scenario())
