"""connect_kv.v1.Cluster and etcdserverpb.Cluster: any member answers, the leader carries out changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from connect_kv.raft.types import Membership
from connect_kv.rpc import cluster_pb2
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller
from connect_kv.services.deadlines import Deadlines
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.membership import UNHEALTHY, MemberChanges
from connect_kv.services.peer_calls import Handler, PeerCalls

Q = TypeVar("Q", bound=Message)
A = TypeVar(
    "A",
    cluster_pb2.MemberAddResponse,
    cluster_pb2.MemberRemoveResponse,
    cluster_pb2.MemberUpdateResponse,
    cluster_pb2.MemberPromoteResponse,
)


class ClusterService:
    """Who is a member, and who shall be."""

    def __init__(
        self,
        executor: CommandExecutor,
        membership: Callable[[], Membership],
        changes: MemberChanges,
        peers: PeerCalls,
        access: Access,
        *,
        patience: float,
    ) -> None:
        """`patience`: seconds a change waits for a leader before it is refused."""
        self._patience = Deadlines(patience)
        self._executor = executor
        self._access = access
        self._membership = membership
        self._changes = changes
        self._peers = peers
        peers.serve("MemberAdd", _encoded(cluster_pb2.MemberAddRequest, changes.add))
        peers.serve("MemberRemove", _encoded(cluster_pb2.MemberRemoveRequest, changes.remove))
        peers.serve("MemberUpdate", _encoded(cluster_pb2.MemberUpdateRequest, changes.update))
        peers.serve("MemberPromote", _encoded(cluster_pb2.MemberPromoteRequest, changes.promote))

    async def MemberList(
        self, request: cluster_pb2.MemberListRequest, caller: Caller
    ) -> cluster_pb2.MemberListResponse:
        """All members, sorted by id."""
        if request.linearizable:
            await self._access.behind(self._executor.barrier, lambda: self._access.known(caller))
        else:
            self._access.known(caller)
        return cluster_pb2.MemberListResponse(
            header=self._executor.header(revision=0), members=self._changes.described(self._membership())
        )

    async def _root(self, caller: Caller) -> None:
        """Not by users and roles that are old: no entry of a change of members is judged again."""
        if self._access.enabled:
            await self._access.behind(self._executor.barrier, lambda: self._access.root(caller))

    async def MemberAdd(
        self, request: cluster_pb2.MemberAddRequest, caller: Caller
    ) -> cluster_pb2.MemberAddResponse:
        """Add a voter or a learner."""
        await self._root(caller)
        if not self._executor.has_leader():
            self._changes.check_started(request)
        return await self._change("MemberAdd", request, cluster_pb2.MemberAddResponse())

    async def MemberRemove(
        self, request: cluster_pb2.MemberRemoveRequest, caller: Caller
    ) -> cluster_pb2.MemberRemoveResponse:
        """Remove a member for good; it stops by itself."""
        await self._root(caller)
        return await self._change("MemberRemove", request, cluster_pb2.MemberRemoveResponse())

    async def MemberUpdate(
        self, request: cluster_pb2.MemberUpdateRequest, caller: Caller
    ) -> cluster_pb2.MemberUpdateResponse:
        """Give a member another peer address."""
        await self._root(caller)
        return await self._change("MemberUpdate", request, cluster_pb2.MemberUpdateResponse())

    async def MemberPromote(
        self, request: cluster_pb2.MemberPromoteRequest, caller: Caller
    ) -> cluster_pb2.MemberPromoteResponse:
        """Make a learner a voter."""
        await self._root(caller)
        return await self._change("MemberPromote", request, cluster_pb2.MemberPromoteResponse())

    async def _change(self, method: str, request: Message, response: A) -> A:
        """Have the leader do it. Without one, after a few elections' time, the cluster is not well."""
        if not await self._executor.leader_within(self._patience):
            raise UNHEALTHY.error(self._executor.why())
        response.ParseFromString(await self._peers.ask_leader(method, request.SerializeToString()))
        response.header.CopyFrom(self._executor.header(revision=0))
        return response


def _encoded(kind: type[Q], call: Callable[[Q], Awaitable[Message]]) -> Handler:
    """The call on bytes, as members ask each other for it."""

    async def handle(request: bytes) -> bytes:
        response = await call(kind.FromString(request))
        return response.SerializeToString()

    return handle
