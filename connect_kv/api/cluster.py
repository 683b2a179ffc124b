"""connect_kv.v1.Cluster and etcdserverpb.Cluster. What is not here answers UNIMPLEMENTED."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from connect_kv.api.registrar import Context
from connect_kv.api.replica import Replica
from connect_kv.raft.types import Member, Membership
from connect_kv.rpc import cluster_pb2
from connect_kv.rpc.command_pb2 import MemberPublish

Published = Callable[[], Mapping[int, MemberPublish]]
"""By node id: the name and client URLs that a member publishes once it has started."""


class ClusterService:
    """Who is a member."""

    def __init__(self, replica: Replica, membership: Callable[[], Membership], published: Published) -> None:
        self._replica = replica
        self._membership = membership
        self._published = published

    async def MemberList(
        self, request: cluster_pb2.MemberListRequest, context: Context
    ) -> cluster_pb2.MemberListResponse:
        """All members, sorted by id."""
        if request.linearizable:
            await self._replica.barrier()
        return cluster_pb2.MemberListResponse(
            header=self._replica.header(revision=0), members=self._members()
        )

    def _members(self) -> list[cluster_pb2.Member]:
        membership, published = self._membership(), self._published()
        learners = membership.learners | membership.learners_next
        return [
            _member(member, published.get(member.node_id), member.node_id in learners)
            for member in membership.members
        ]


def _member(member: Member, published: MemberPublish | None, is_learner: bool) -> cluster_pb2.Member:
    """A member has neither a name nor client addresses until it has started and said so."""
    return cluster_pb2.Member(
        ID=member.node_id,
        name=published.name if published else "",
        peerURLs=[f"http://{member.peer_address}"],
        clientURLs=published.client_urls if published else (),
        isLearner=is_learner,
    )
