"""Who a node is: ids of a first cluster, computed alike by each of its members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from connect_kv.config import InitialMember
from connect_kv.node.membership import hashed_id
from connect_kv.raft.types import Member, Membership


@dataclass(frozen=True, slots=True)
class InitialCluster:
    """The cluster that a list of initial members describes."""

    cluster_id: int
    membership: Membership

    def node_id(self, name: str) -> int:
        """Of the member called so."""
        return next(member.node_id for member in self.membership.members if member.name == name)


def initial_cluster(
    members: Iterable[InitialMember], client_addresses: Mapping[str, str] | None = None
) -> InitialCluster:
    """Ids are hashes of names and peer addresses: every member comes to the same ones by itself."""
    listed = sorted(members, key=lambda member: member.name)
    text = ",".join(f"{member.name}={member.peer_address}" for member in listed)
    cluster_id = hashed_id("cluster", text)
    addresses = client_addresses or {}
    nodes = sorted(
        (
            Member(
                node_id=hashed_id("initial member", cluster_id, member.name, member.peer_address),
                name=member.name,
                peer_address=member.peer_address,
                client_address=addresses.get(member.name, ""),
            )
            for member in listed
        ),
        key=lambda member: member.node_id,
    )
    voters = frozenset(member.node_id for member in nodes)
    return InitialCluster(cluster_id, Membership(members=tuple(nodes), voters=voters))
