"""connect_kv.v1.Cluster and etcdserverpb.Cluster: any member answers, the leader carries out changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from connect_kv.api.members import MemberChanges, Published, described
from connect_kv.api.peer_calls import Handler, PeerCalls
from connect_kv.api.registrar import Context
from connect_kv.api.replica import Replica
from connect_kv.raft.types import Membership
from connect_kv.rpc import cluster_pb2

Q = TypeVar("Q", bound=Message)


class ClusterService:
    """Who is a member, and who shall be."""

    def __init__(
        self,
        replica: Replica,
        membership: Callable[[], Membership],
        published: Published,
        changes: MemberChanges,
        peers: PeerCalls,
    ) -> None:
        self._replica = replica
        self._membership = membership
        self._published = published
        self._peers = peers
        peers.serve("MemberAdd", _encoded(cluster_pb2.MemberAddRequest, changes.add))
        peers.serve("MemberRemove", _encoded(cluster_pb2.MemberRemoveRequest, changes.remove))
        peers.serve("MemberUpdate", _encoded(cluster_pb2.MemberUpdateRequest, changes.update))
        peers.serve("MemberPromote", _encoded(cluster_pb2.MemberPromoteRequest, changes.promote))

    async def MemberList(
        self, request: cluster_pb2.MemberListRequest, context: Context
    ) -> cluster_pb2.MemberListResponse:
        """All members, sorted by id."""
        if request.linearizable:
            await self._replica.barrier()
        return cluster_pb2.MemberListResponse(
            header=self._replica.header(revision=0), members=described(self._membership(), self._published())
        )

    async def MemberAdd(
        self, request: cluster_pb2.MemberAddRequest, context: Context
    ) -> cluster_pb2.MemberAddResponse:
        """Add a voter or a learner."""
        answer = await self._peers.ask_leader("MemberAdd", request.SerializeToString())
        response = cluster_pb2.MemberAddResponse.FromString(answer)
        response.header.CopyFrom(self._replica.header(revision=0))
        return response

    async def MemberRemove(
        self, request: cluster_pb2.MemberRemoveRequest, context: Context
    ) -> cluster_pb2.MemberRemoveResponse:
        """Remove a member for good; it stops by itself."""
        answer = await self._peers.ask_leader("MemberRemove", request.SerializeToString())
        response = cluster_pb2.MemberRemoveResponse.FromString(answer)
        response.header.CopyFrom(self._replica.header(revision=0))
        return response

    async def MemberUpdate(
        self, request: cluster_pb2.MemberUpdateRequest, context: Context
    ) -> cluster_pb2.MemberUpdateResponse:
        """Give a member another peer address."""
        answer = await self._peers.ask_leader("MemberUpdate", request.SerializeToString())
        response = cluster_pb2.MemberUpdateResponse.FromString(answer)
        response.header.CopyFrom(self._replica.header(revision=0))
        return response

    async def MemberPromote(
        self, request: cluster_pb2.MemberPromoteRequest, context: Context
    ) -> cluster_pb2.MemberPromoteResponse:
        """Make a learner a voter."""
        answer = await self._peers.ask_leader("MemberPromote", request.SerializeToString())
        response = cluster_pb2.MemberPromoteResponse.FromString(answer)
        response.header.CopyFrom(self._replica.header(revision=0))
        return response


def _encoded(kind: type[Q], call: Callable[[Q], Awaitable[Message]]) -> Handler:
    """The call on bytes, as members ask each other for it."""

    async def handle(request: bytes) -> bytes:
        response = await call(kind.FromString(request))
        return response.SerializeToString()

    return handle
