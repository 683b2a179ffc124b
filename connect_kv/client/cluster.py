"""ClusterClient: who is a member of the cluster, and changes of that."""

from __future__ import annotations

from connect_kv.client.endpoints import Endpoints
from connect_kv.client.retry import UnaryCalls
from connect_kv.rpc.cluster_pb2 import (
    Member,
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
)

__all__ = ["ClusterClient"]


class ClusterClient:
    """``client.cluster``. Changes go through any member and are carried out by the leader.

    Members are named by their ids. Changes raise Refused with etcd's text if they would do harm, and
    OutcomeUnknown if the answer is lost: look at `members` then.
    """

    def __init__(self, endpoints: Endpoints, timeout: float) -> None:
        self._calls = UnaryCalls(endpoints, timeout)

    async def members(self, *, linearizable: bool = True, timeout: float | None = None) -> list[Member]:
        """All, by id; not `linearizable`: as the asked member knows them."""
        request = MemberListRequest(linearizable=linearizable)
        answer = await self._calls.ask(lambda stubs: stubs.member_list, request, timeout, writes=False)
        return list(answer.members)

    async def add(self, peer_address: str, *, learner: bool = False, timeout: float | None = None) -> Member:
        """Add a member that will listen for others on ``host:port``; start it afterwards.

        As a learner it gets the log and does not count until it is promoted: the safe way.
        """
        request = MemberAddRequest(peerURLs=[_url(peer_address)], isLearner=learner)
        answer = await self._calls.ask(lambda stubs: stubs.member_add, request, timeout, writes=True)
        return answer.member

    async def promote(self, id: int, *, timeout: float | None = None) -> None:
        """Make a learner that has caught up a voter."""
        request = MemberPromoteRequest(ID=id)
        await self._calls.ask(lambda stubs: stubs.member_promote, request, timeout, writes=True)

    async def update(self, id: int, peer_address: str, *, timeout: float | None = None) -> None:
        """Tell the cluster that a member is to be found at another ``host:port``."""
        request = MemberUpdateRequest(ID=id, peerURLs=[_url(peer_address)])
        await self._calls.ask(lambda stubs: stubs.member_update, request, timeout, writes=True)

    async def remove(self, id: int, *, timeout: float | None = None) -> None:
        """Remove a member for good: it stops by itself, and its id never comes back."""
        request = MemberRemoveRequest(ID=id)
        await self._calls.ask(lambda stubs: stubs.member_remove, request, timeout, writes=True)


def _url(address: str) -> str:
    return address if "://" in address else f"http://{address}"
