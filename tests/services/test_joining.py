"""A member that joins a running cluster, and one that is removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from connect_kv.config import InitialMember, ServerConfig
from connect_kv.errors import MemberRemoved, RefusedToStart
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Member as RaftMember
from connect_kv.rpc import kv_pb2
from connect_kv.server.composition import KvServer
from tests.services.cluster import Member, agree, configs, running
from tests.services.conftest import until


def joining(config: ServerConfig, founder: ServerConfig) -> ServerConfig:
    """The configuration of a member that joins the founder's cluster."""
    members = (
        InitialMember(name=founder.name, peer_address=founder.peer_address),
        InitialMember(name="n2", peer_address=config.peer_address),
    )
    return replace(config, name="n2", initial_cluster=members, initial_cluster_state="existing")


async def test_a_member_joins_serves_and_is_removed(tmp_path: Path) -> None:
    (first,) = configs(tmp_path / "first", 1)
    (other,) = configs(tmp_path / "other", 1)
    second = joining(other, first)
    async with running([first]) as (founder,):
        put = kv_pb2.PutRequest(key=b"k", value=b"v")
        await founder.call("/etcdserverpb.KV/Put", put, kv_pb2.PutResponse)
        with pytest.raises(RefusedToStart, match="add it there first"):
            await KvServer(second).start()
        added = RaftMember(node_id=0, name="n2", peer_address=second.peer_address)
        membership = await founder.server.node.change_membership(MembershipChange().add_learner(added))
        joined = Member(second)
        await joined.start()
        try:
            await until(lambda: agree([founder, joined]))
            (learner,) = membership.learners
            await until(lambda: joined.server.node.last_applied >= founder.server.node.last_applied)
            await founder.server.node.change_membership(MembershipChange().promote(learner))
            # Until it has applied that itself, it refuses what learners must not serve.
            await until(lambda: learner in joined.server.node.membership.voters)
            found = await joined.call(
                "/etcdserverpb.KV/Range", kv_pb2.RangeRequest(key=b"k"), kv_pb2.RangeResponse
            )
            assert found.kvs[0].value == b"v"
            assert found.header.member_id == learner
            await founder.server.node.change_membership(MembershipChange().remove(learner))
            assert isinstance(await joined.server.failed, MemberRemoved)
        finally:
            await joined.stop()
        await founder.call("/etcdserverpb.KV/Put", put, kv_pb2.PutResponse)
