"""Who the other members are: their ids, where they are reached, and what they understand."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping

from connect_kv.hosts import names_host
from connect_kv.interfaces import Identity
from connect_kv.peer_protocol import Hello, HelloReply, HelloVerdict
from connect_kv.raft.types import Member, Membership

logger = logging.getLogger(__name__)

PROTOCOL = 1
"""The version of the traffic between members that this code speaks."""
OLDEST_PROTOCOL = 1
"""The oldest it understands: always the one before, so that a cluster can be upgraded member by member."""
_MOST_REFUSED = 256
"""Members whose last refusal is remembered."""


def hashed_id(*parts: object) -> int:
    """A 64-bit id, never 0, that depends on all `parts`."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1


def added_id(cluster_id: int, index: int, position: int) -> int:
    """The id of the member that the entry at `index` adds, as the `position`-th of those it adds.

    An index is committed once, so an id is never used twice.
    """
    return hashed_id("member", cluster_id, index, position)


def verify_hello(
    hello: Hello,
    identity: Identity,
    removed: Iterable[int],
    noted: bytes | None,
    *,
    protocol: int = PROTOCOL,
    oldest_protocol: int = OLDEST_PROTOCOL,
) -> HelloVerdict:
    """What to answer that sender, as far as its identity goes.

    `removed` are ids whose removal is *committed*: one that may still be rolled back must not make
    a member go away. `noted` is the directory under which the sender was seen first.
    """
    if hello.protocol < oldest_protocol or hello.oldest_protocol > protocol:
        return HelloVerdict.INCOMPATIBLE
    if hello.cluster_id != identity.cluster_id:
        return HelloVerdict.WRONG_CLUSTER
    if hello.target != identity.node_id:
        return HelloVerdict.WRONG_MEMBER
    if hello.source in removed:
        return HelloVerdict.REMOVED
    if noted is not None and noted != hello.directory_id:
        return HelloVerdict.AMNESIA
    return HelloVerdict.WELCOME


def is_certified(names: frozenset[str] | None, member: Member | None, address: str = "") -> bool:
    """Whether a certificate with these names is that member's: it has its name, or the host it is reached at.

    None: there is no TLS between members, and nothing to be looked at. Without this a certificate of the same
    CA that is a client's, or another service's, would be as good as a member's. `address`: where the
    member is known to be besides.
    """
    if names is None:
        return True
    known = [address] if address else []
    if member is not None:
        known.append(member.peer_address)
        if member.name and member.name in names:  # one that was added and has not started has none yet
            return True
    return any(names_host(names, one.rpartition(":")[0]) for one in known)


def has_majority(membership: Membership, node_ids: Iterable[int], *, besides: int | None = None) -> bool:
    """Whether these are a majority of the voters (of both sets in joint consensus).

    With `besides`, of the voters other than that one; where there are no others, yes.
    """
    ids = frozenset(node_ids)
    if not membership.voters:
        return False
    left_out = frozenset() if besides is None else frozenset({besides})
    return all(
        len((voters - left_out) & ids) * 2 > len(voters - left_out) or voters == left_out
        for voters in (membership.voters, membership.voters_outgoing)
        if voters
    )


def log_changes(before: Membership, after: Membership) -> None:
    """One line for each member that is another than before."""
    for node_id in sorted({*before.node_ids, *after.node_ids}):
        old, new = before.member(node_id), after.member(node_id)
        fields = {"member": f"{node_id:x}"}
        if new is None:
            logger.info("a member was removed", extra=fields)
            continue
        fields["address"] = new.peer_address
        if old is None:
            kind = "learner" if node_id in after.learners else "voter"
            logger.info("a member was added", extra={**fields, "kind": kind})
            continue
        if old.peer_address != new.peer_address:
            logger.info("a member has another address", extra=fields)
        if node_id in before.learners and node_id in after.voters:
            logger.info("a learner was promoted", extra=fields)
        if node_id in after.learners and node_id not in before.learners:
            logger.info("a voter became a learner", extra=fields)


class Refusals:
    """Tells a refusal that is news from one that is repeated with every attempt to connect."""

    def __init__(self) -> None:
        self._last: dict[int, HelloVerdict] = {}

    def news(self, node_id: int, verdict: HelloVerdict) -> bool:
        """Whether that member was not refused for this reason the last time."""
        if len(self._last) >= _MOST_REFUSED and node_id not in self._last:
            self._last.clear()  # strangers come under any id
        before = self._last.get(node_id)
        self._last[node_id] = verdict
        return verdict is not before

    def welcome(self, node_id: int) -> None:
        """It is refused no longer."""
        self._last.pop(node_id, None)


class AddressBook:
    """Addresses of the members in force, of those not yet or no longer in force, and of those heard of.

    A member that lags must be able to answer a leader it has never heard of, and one that is being
    removed must still hear that it was.
    """

    def __init__(self, node_id: int) -> None:
        self._node_id = node_id
        self._reported: dict[int, str] = {}
        self._addresses: dict[int, str] = {}

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._addresses

    @property
    def addresses(self) -> Mapping[int, str]:
        """Where each other member is reached."""
        return self._addresses

    def hear(self, membership: Membership) -> None:
        """Another member says that this is the membership in force."""
        self._reported.update({member.node_id: member.peer_address for member in membership.members})

    def update(self, in_force: Membership, applied: Membership) -> bool:
        """Returns whether any address changed. What is in force overrides what is applied or heard."""
        addresses = {
            node_id: address
            for node_id, address in self._reported.items()
            if node_id not in applied.removed and node_id not in in_force.removed
        }
        for membership in (applied, in_force):
            addresses.update({member.node_id: member.peer_address for member in membership.members})
        addresses.pop(self._node_id, None)
        changed = addresses != self._addresses
        self._addresses = addresses
        return changed


class PeerVersions:
    """What each member has said it can apply: the largest command number, and machines of users."""

    def __init__(self, node_id: int, highest_command: int, machines: bytes = b"") -> None:
        self._node_id = node_id
        self._highest = {node_id: highest_command}
        self._machines = {node_id: machines}

    @property
    def machines(self) -> Mapping[int, bytes]:
        """What each member that was heard said last of its machines."""
        return self._machines

    def note(self, node_id: int, hello: Hello | HelloReply) -> None:
        """A member introduced itself, or answered our introduction."""
        self._highest[node_id] = hello.highest_command
        self._machines[node_id] = hello.machines

    def common(self, membership: Membership) -> int:
        """What all members can apply; 0 while one of them has not been heard."""
        node_ids = membership.node_ids or (self._node_id,)
        return min(self._highest.get(node_id, 0) for node_id in node_ids)
