"""Before a node runs: whose directory is this, and may it be used (DESIGN: amnesia)."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from connect_kv.errors import MemberRemoved, RefusedToStart
from connect_kv.interfaces import Identity, LogStore, Transport, Worker
from connect_kv.node.membership import OLDEST_PROTOCOL, PROTOCOL, hashed_id
from connect_kv.node.peers import WIPED
from connect_kv.peer_protocol import Description, Hello, HelloVerdict
from connect_kv.raft.types import ZERO, Member, Membership, Restored

logger = logging.getLogger(__name__)


def initial_cluster(members: Sequence[Member], token: str = "") -> tuple[int, Membership]:
    """The cluster id and the first Membership: the same on every member that is told the same.

    `members` have names and addresses, their `node_id` is made here. `token` tells clusters with the same
    addresses apart. Raises RefusedToStart.
    """
    for field in ("name", "peer_address"):
        values = [getattr(member, field) for member in members]
        if len(set(values)) < len(values) or not all(values):
            raise RefusedToStart(
                f"initial cluster: every member needs a {field} of its own: {sorted(values)}"
            )
    if not members:
        raise RefusedToStart("initial cluster: it has no members")
    named = sorted((member.name, member.peer_address) for member in members)
    cluster_id = hashed_id("cluster", token, *(part for pair in named for part in pair))
    listed = [
        replace(member, node_id=hashed_id("initial", cluster_id, member.name, member.peer_address))
        for member in members
    ]
    return cluster_id, Membership(
        members=tuple(sorted(listed, key=lambda member: member.node_id)),
        voters=frozenset(member.node_id for member in listed),
    )


async def bootstrap(
    *,
    log: LogStore,
    worker: Worker,
    name: str,
    members: Sequence[Member],
    token: str,
    rng: random.Random,
    state_name: str,
) -> Identity:
    """Make an empty directory that of `name` in a new cluster. Raises RefusedToStart.

    It votes only once a majority has noted its directory id, so that a directory that was wiped
    after the first start is recognised.
    """
    cluster_id, membership = initial_cluster(members, token)
    own = next((member for member in membership.members if member.name == name), None)
    if own is None:
        names = ", ".join(sorted(member.name for member in members))
        raise RefusedToStart(f"initial cluster: {name} is not among its members {names}")
    identity = Identity(
        cluster_id=cluster_id, node_id=own.node_id, name=name, directory_id=_directory_id(rng)
    )
    await worker.run(partial(log.bootstrap, identity, membership, state_name))
    return identity


async def join(
    *,
    log: LogStore,
    worker: Worker,
    transport: Transport,
    name: str,
    peer_address: str,
    ask: Sequence[str],
    rng: random.Random,
    state_name: str,
) -> Description:
    """Make an empty directory that of the member which a running cluster knows under `peer_address`.

    Asks the peer addresses `ask` in turn; hand what is returned to the node's `hear`. The log starts
    empty and without a membership: both come from the leader. A member that was restarted before they
    came asks again: it knows nobody yet. Raises RefusedToStart, MemberRemoved.
    """
    known = log.identity
    directory_id = known.directory_id if known else _directory_id(rng)
    asker = Hello(
        cluster_id=known.cluster_id if known else 0,
        source=known.node_id if known else 0,
        target=0,
        directory_id=directory_id,
        protocol=PROTOCOL,
        oldest_protocol=OLDEST_PROTOCOL,
        highest_command=0,
    )
    description = await describe(transport, ask, asker, peer_address)
    _accept(description, peer_address)
    if known:
        return description
    member = next(m for m in description.membership.members if m.peer_address == peer_address)
    identity = Identity(
        cluster_id=description.cluster_id, node_id=member.node_id, name=name, directory_id=directory_id
    )
    await worker.run(partial(log.bootstrap, identity, Membership(), state_name))
    return description


async def describe(transport: Transport, ask: Sequence[str], asker: Hello, peer_address: str) -> Description:
    """What the first of the addresses `ask` that answers says. Raises RefusedToStart if none does."""
    failures = []
    unknown = None
    for address in ask:
        if address == peer_address:
            continue
        try:
            description = await transport.describe(address, asker, peer_address)
        except OSError as error:
            failures.append(f"{address}: {error}")
            continue
        if description.hello.verdict is not HelloVerdict.UNKNOWN_MEMBER:
            return description
        # It may lag behind the change that added us; another may know.
        unknown = description
    if unknown is not None:
        return unknown
    raise RefusedToStart(
        "no member of the running cluster answers: " + "; ".join(failures or ["none is given"])
    )


def restarted(
    identity: Identity,
    *,
    name: str,
    peer_address: str = "",
    configured: Sequence[Member] = (),
    membership: Membership | None = None,
) -> None:
    """Check that a used directory belongs to the member that is being started. Raises RefusedToStart.

    `peer_address` is where it will be, `configured` the initial cluster it was told of, `membership` the
    directory's. They only decide whose directory this is: membership and addresses come from the log, and
    a configuration that is out of date gets a warning that names the difference.
    """
    if identity.name != name:
        raise RefusedToStart(
            f"the data directory belongs to member {identity.name}, not {name}: "
            "start it under that name, or use another directory"
        )
    if membership is None or not membership.members or not configured:
        return
    listed = {member.peer_address: member.name for member in configured}
    known = {member.peer_address: member.name for member in membership.members}
    if len(listed) > 1 and known.keys().isdisjoint({*listed, peer_address}):
        raise RefusedToStart(
            f"the data directory belongs to another cluster ({identity.cluster_id:x}, with "
            f"{', '.join(known)}): no address in the configured initial cluster is among them; "
            "correct that, or use another one"
        )
    if differences := [
        f"{what} {', '.join(sorted(addresses))}"
        for what, addresses in (
            ("lists", listed.keys() - known.keys()),
            ("does not list", known.keys() - listed.keys()),
        )
        if addresses
    ]:
        logger.warning(
            "the configured initial cluster is out of date: it %s; "
            "membership and addresses come from the log",
            " and ".join(differences),
        )


def start_from(restored: Restored, *, node_id: int, last_applied: int, state_lost: bool) -> Restored:
    """What the core starts from, given what the state database on disk has applied.

    A state that is lost, or older than the log's first entry, is rebuilt from the log if that
    reaches back to its beginning; otherwise the leader sends a snapshot. Raises RefusedToStart if
    there is nobody to send one, MemberRemoved.
    """
    current = restored.memberships[-1][1]
    if node_id in current.removed:
        applied = max((index for index, _ in restored.memberships), default=0)
        if applied <= max(last_applied, restored.compacted.index):
            raise MemberRemoved("this member was removed from its cluster; its data directory can be deleted")
    if last_applied >= restored.compacted.index and not (state_lost and restored.compacted != ZERO):
        return replace(restored, last_applied=last_applied)
    if current.voters <= {node_id}:
        raise RefusedToStart(
            "the state database is damaged, the log no longer reaches back to its beginning, and there is no "
            "other member to fetch a snapshot from: restore a backup (docs/operations.md)"
        )
    return replace(restored, last_applied=last_applied, needs_snapshot=True)


def _accept(description: Description, peer_address: str) -> None:
    match description.hello.verdict:
        case HelloVerdict.WELCOME:
            return
        case HelloVerdict.UNKNOWN_MEMBER:
            raise RefusedToStart(
                f"the running cluster has no member at {peer_address}: add it there first, then start it"
            )
        case HelloVerdict.AMNESIA:
            raise RefusedToStart(WIPED)
        case HelloVerdict.REMOVED:
            raise MemberRemoved("this member was removed from its cluster")
        case other:
            raise RefusedToStart(
                f"the running cluster refuses this member: {other.name} {description.hello.detail}"
            )


def _directory_id(rng: random.Random) -> bytes:
    return rng.randbytes(16)
