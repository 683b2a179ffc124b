"""Overviews: all members as one of them sees them, each asked for its own part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from connect_kv.errors import ConnectKvError
from connect_kv.interfaces import Clock
from connect_kv.node.node import RaftNode
from connect_kv.node.status import Contact
from connect_kv.rpc.command_pb2 import MemberPublish
from connect_kv.rpc.dashboard_pb2 import (
    HistoryRequest,
    HistoryResponse,
    MemberOverview,
    MemberState,
    OverviewResponse,
)
from connect_kv.services.peer_calls import PeerCalls
from connect_kv.services.samples import Samples

ANSWER_SECONDS = 1.0
"""A member that takes longer to say how it is counts as silent."""
_FRESH_SECONDS = 0.5
"""Who asks within that time after another one gets the same answer."""
_NOT_KNOWN = -1.0
_STATE, _HISTORY = "DashboardState", "DashboardHistory"


class Overviews:
    """Asks the others; says of one that does not answer for how long, and what it said last."""

    def __init__(
        self,
        node: RaftNode[bytes],
        peers: PeerCalls,
        *,
        clock: Clock,
        own: Callable[[], MemberState],
        samples: Samples,
        published: Callable[[], Mapping[int, MemberPublish]],
        name: Callable[[int], str],
    ) -> None:
        """`own`: how this member is; `published`: what members have said of themselves."""
        self._node = node
        self._peers = peers
        self._clock = clock
        self._own = own
        self._samples = samples
        self._published = published
        self._name = name
        self._asking = asyncio.Lock()
        self._last: tuple[float, OverviewResponse] | None = None
        self._known: dict[int, tuple[float, MemberOverview]] = {}
        """What a member said last, and when."""
        peers.serve(_STATE, self._state_for_peer)
        peers.serve(_HISTORY, self._history_for_peer)

    async def all(self) -> OverviewResponse:
        """Of now, or of a moment ago. Takes as long as the slowest member, a second at most."""
        async with self._asking:
            if self._last is None or self._clock.now() - self._last[0] > _FRESH_SECONDS:
                found = await self._gather()
                self._last = (self._clock.now(), found)
        response = OverviewResponse()
        response.CopyFrom(self._last[1])
        return response

    async def history(self, request: HistoryRequest) -> HistoryResponse:
        """The samples of any member. Raises as `PeerCalls.ask` does."""
        if request.member in (0, self._node.identity.node_id):
            return self._samples.after(request.after)
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            answer = await self._peers.ask(request.member, _HISTORY, request.SerializeToString())
        return HistoryResponse.FromString(answer)

    async def _gather(self) -> OverviewResponse:
        membership = self._node.membership
        for gone in self._known.keys() - set(membership.node_ids):
            del self._known[gone]
        members = await asyncio.gather(*(self._one(node_id) for node_id in membership.node_ids))
        voters = membership.voters
        return OverviewResponse(
            leader=self._node.leader_id or 0,
            members=members,
            voters=len(voters),
            quorum=len(voters) // 2 + 1,
            answering=sum(one.answers for one in members if one.ID in voters),
        )

    async def _one(self, node_id: int) -> MemberOverview:
        found = self._described(node_id)
        if node_id == self._node.identity.node_id:
            found.answers = True
            found.state.CopyFrom(self._own())
            return found
        sent, sent_wall = self._clock.now(), self._clock.wall()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found.state.ParseFromString(await self._peers.ask(node_id, _STATE, b""))
        except (ConnectKvError, TimeoutError, DecodeError) as error:
            return self._silent(found, error)
        now = self._clock.now()
        found.answers = True
        found.clock_error = (now - sent) / 2
        found.clock_difference = (found.state.wall - sent_wall) / 1e9 - found.clock_error
        self._known[node_id] = (now, found)
        return found

    def _silent(self, found: MemberOverview, error: Exception) -> MemberOverview:
        """What there is to say of a member that gave no answer."""
        contact = self._node.contacts().get(found.ID)
        stands = contact is not None and contact is not Contact.ANSWERS
        found.problem = contact.value if stands and contact is not None else (str(error) or "does not answer")
        since, heard = self._known.get(found.ID), self._node.silence(found.ID)
        known = [] if heard is None else [heard]
        if since is not None:
            known.append(self._clock.now() - since[0])
            found.state.CopyFrom(since[1].state)
        found.silent_seconds = min(known, default=_NOT_KNOWN)
        return found

    def _described(self, node_id: int) -> MemberOverview:
        membership, published = self._node.membership, self._published().get(node_id)
        member = membership.member(node_id)
        return MemberOverview(
            ID=node_id,
            name=self._name(node_id),
            client_urls=() if published is None else published.client_urls,
            peer_url="" if member is None else member.peer_address,
            is_learner=node_id in membership.learners,
        )

    async def _state_for_peer(self, request: bytes) -> bytes:
        return self._own().SerializeToString()

    async def _history_for_peer(self, request: bytes) -> bytes:
        return self._samples.after(HistoryRequest.FromString(request).after).SerializeToString()
