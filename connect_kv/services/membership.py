"""Changes of membership, carried out on the leader, and the checks that keep a cluster from harm.

They are etcd's, with its texts, and one difference: a member counts as connected if it answers this
leader now; etcd asks for five seconds in a row, and so refuses every change just after an election.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

from connect_kv.errors import NotLeader, Unavailable
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.interfaces import Clock
from connect_kv.node.node import RaftNode
from connect_kv.raft.membership import MembershipChange
from connect_kv.raft.types import Member, Membership
from connect_kv.rpc import cluster_pb2
from connect_kv.rpc.command_pb2 import MemberPublish
from connect_kv.services.executor import CommandExecutor

BAD_URLS = Refusal(Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
URL_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: Peer URLs already exists")
NOT_FOUND = Refusal(Code.NOT_FOUND, "etcdserver: member not found")
TOO_FEW_STARTED = Refusal(
    Code.FAILED_PRECONDITION, "etcdserver: re-configuration failed due to not enough started members"
)
UNHEALTHY = Refusal(Code.UNAVAILABLE, "etcdserver: unhealthy cluster")
TOO_MANY_LEARNERS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: too many learner members in cluster")
NOT_A_LEARNER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member")
NOT_IN_SYNC = Refusal(
    Code.FAILED_PRECONDITION, "etcdserver: can only promote a learner member which is in sync with leader"
)

Published = Callable[[], Mapping[int, MemberPublish]]
"""By node id: the name and client URLs that a member publishes once it has started."""

_IN_SYNC = 0.9
"""How much of the leader's log a learner must have to be promoted."""


class MemberChanges:
    """One change after another. Every method raises NotLeader, and Refused with etcd's text."""

    def __init__(
        self,
        node: RaftNode[bytes],
        executor: CommandExecutor,
        published: Published,
        *,
        clock: Clock,
        election_seconds: float,
        max_learners: int,
        peer_scheme: str = "http",
    ) -> None:
        """`peer_scheme`: of the URLs that members have for each other."""
        self._peer_scheme = peer_scheme
        self._node = node
        self._executor = executor
        self._published = published
        self._clock = clock
        self._patience = election_seconds
        self._max_learners = max_learners
        self._turn = asyncio.Lock()
        self.promotions = 0
        """Learners made voters through this member."""

    async def add(self, request: cluster_pb2.MemberAddRequest) -> cluster_pb2.MemberAddResponse:
        """Add a voter or a learner; it gets its id here and its name when it starts."""
        address = peer_address(request.peerURLs)
        member = Member(node_id=0, name="", peer_address=address)
        self.check_started(request)  # also where a majority that has not started keeps all from being settled
        async with self._turn:
            membership = await self._settled()
            self.check_started(request)
            if not request.isLearner:
                await self._until_active(membership.voters, _majority(len(membership.voters) + 1))
            if any(other.peer_address == address for other in membership.members):
                raise URL_EXISTS.error()
            if request.isLearner and len(membership.learners) >= self._max_learners:
                raise TOO_MANY_LEARNERS.error()
            change = MembershipChange()
            change = change.add_learner(member) if request.isLearner else change.add_voter(member)
            after = await self._node.change_membership(change)
        members = self.described(after)
        added = next(one for one in after.members if one.peer_address == address)
        (own,) = (one for one in members if added.node_id == one.ID)
        return cluster_pb2.MemberAddResponse(member=own, members=members)

    def check_started(self, request: cluster_pb2.MemberAddRequest) -> None:
        """Refuse a further voter while too few of those there are have ever started, as far as known here."""
        membership = self._node.membership
        started, voters = self._started(membership.voters), len(membership.voters)
        # Alone, one may add another whatever happens then: so a lost cluster is built up anew.
        if not request.isLearner and started < _majority(voters + 1) and not started == voters == 1:
            raise TOO_FEW_STARTED.error()

    async def remove(self, request: cluster_pb2.MemberRemoveRequest) -> cluster_pb2.MemberRemoveResponse:
        """Remove a member for good, this one included."""
        async with self._turn:
            membership = await self._settled()
            _existing(membership, request.ID)
            if request.ID in membership.voters:
                left = membership.voters - {request.ID}
                if not left or self._started(left) < _majority(len(left)):
                    raise TOO_FEW_STARTED.error()
                await self._until_active(left, _majority(len(left)))
                if self._node.status().raft.node_id == request.ID:
                    await self._hand_over(left)
            after = await self._node.change_membership(MembershipChange().remove(request.ID))
        return cluster_pb2.MemberRemoveResponse(members=self.described(after))

    async def update(self, request: cluster_pb2.MemberUpdateRequest) -> cluster_pb2.MemberUpdateResponse:
        """Give a member another peer address."""
        async with self._turn:
            membership = await self._settled()
            member = _existing(membership, request.ID)
            address = peer_address(request.peerURLs)
            if any(one.peer_address == address and one is not member for one in membership.members):
                raise URL_EXISTS.error()
            change = MembershipChange().update(replace(member, peer_address=address))
            after = await self._node.change_membership(change)
        return cluster_pb2.MemberUpdateResponse(members=self.described(after))

    async def promote(self, request: cluster_pb2.MemberPromoteRequest) -> cluster_pb2.MemberPromoteResponse:
        """Make a learner that has the log a voter."""
        async with self._turn:
            membership = await self._settled()
            _existing(membership, request.ID)
            if request.ID not in membership.learners:
                raise NOT_A_LEARNER.error()
            if not self._in_sync(request.ID):
                raise NOT_IN_SYNC.error()
            voters = membership.voters | {request.ID}
            if self._started(membership.voters) + 1 < _majority(len(voters)):
                raise TOO_FEW_STARTED.error()
            await self._until_active(voters, _majority(len(voters)))
            after = await self._node.change_membership(MembershipChange().promote(request.ID))
            self.promotions += 1
        return cluster_pb2.MemberPromoteResponse(members=self.described(after))

    async def _hand_over(self, voters: frozenset[int]) -> None:
        """The leader itself is to go: another one leads first, and removes it without a pause.

        Raises NotLeader then. If nobody takes over, it has to remove itself.
        """
        followers = [one for one in self._node.status().raft.followers if one.node_id in voters]
        successor = max(followers, key=lambda one: one.match_index).node_id
        with suppress(Unavailable):
            await self._node.transfer_leadership(successor)
            raise NotLeader(successor)

    async def _settled(self) -> Membership:
        """The membership once nothing that came before is under way any more."""
        if not self._node.is_leader:
            raise NotLeader(self._node.leader_id)
        await self._executor.barrier()
        await self._node.until(self._quiet)
        if not self._node.is_leader:
            raise NotLeader(self._node.leader_id)
        return self._node.membership

    def described(self, membership: Membership) -> list[cluster_pb2.Member]:
        """Its members as clients are told, sorted by id."""
        return described(membership, self._published(), self._peer_scheme)

    def _quiet(self) -> bool:
        raft = self._node.status().raft
        return raft.membership_index <= raft.applied_index and not raft.membership.joint

    def _started(self, node_ids: frozenset[int]) -> int:
        """Who has published itself, or was heard: it may be about to."""
        return len(node_ids & (self._published().keys() | self._node.active_since(-math.inf)))

    def _in_sync(self, learner: int) -> bool:
        raft = self._node.status().raft
        progress = next((one for one in raft.followers if one.node_id == learner), None)
        return progress is not None and progress.match_index >= _IN_SYNC * raft.last_index

    async def _until_active(self, voters: frozenset[int], needed: int) -> None:
        """Wait until enough of them have answered a heartbeat of this leader from now on."""
        needed = min(needed, len(voters))
        begun = self._clock.now()

        def active() -> bool:
            return len(voters & self._node.active_since(begun)) >= needed

        await self._node.until(lambda: active() or self._clock.now() >= begun + self._patience)
        if not active():
            raise UNHEALTHY.error(self._executor.why())


def peer_address(urls: Sequence[str]) -> str:
    """``host:port`` of the one URL a member has. Raises Refused."""
    if len(urls) != 1:
        raise BAD_URLS.error()
    try:
        parts = urlsplit(urls[0])
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BAD_URLS.error() from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not port
        or parts.path
        or parts.query
        or parts.fragment
    ):
        raise BAD_URLS.error()
    if parts.username is not None or any(character.isspace() for character in host):
        raise BAD_URLS.error()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def described(
    membership: Membership, published: Mapping[int, MemberPublish], peer_scheme: str
) -> list[cluster_pb2.Member]:
    """All members, sorted by id."""
    learners = membership.learners | membership.learners_next
    return [
        _described(member, published.get(member.node_id), member.node_id in learners, peer_scheme)
        for member in membership.members
    ]


def _described(
    member: Member, published: MemberPublish | None, is_learner: bool, peer_scheme: str
) -> cluster_pb2.Member:
    """A member has neither a name nor client addresses until it has started and said so."""
    return cluster_pb2.Member(
        ID=member.node_id,
        name=published.name if published else "",
        peerURLs=[f"{peer_scheme}://{member.peer_address}"],
        clientURLs=published.client_urls if published else (),
        isLearner=is_learner,
    )


def _existing(membership: Membership, node_id: int) -> Member:
    member = membership.member(node_id)
    if member is None:
        raise NOT_FOUND.error()
    return member


def _majority(count: int) -> int:
    return count // 2 + 1
