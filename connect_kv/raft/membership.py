"""Changes to a Membership (thesis 4): copy, change, check, return. And which one is in force where."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from connect_kv.errors import MembershipRefused
from connect_kv.raft.errors import RaftInvariantError
from connect_kv.raft.types import Member, Membership


@dataclass(frozen=True, slots=True)
class _AddVoter:
    member: Member


@dataclass(frozen=True, slots=True)
class _AddLearner:
    member: Member


@dataclass(frozen=True, slots=True)
class _Promote:
    node_id: int


@dataclass(frozen=True, slots=True)
class _Demote:
    node_id: int


@dataclass(frozen=True, slots=True)
class _Remove:
    node_id: int


@dataclass(frozen=True, slots=True)
class _Update:
    member: Member


_Operation = _AddVoter | _AddLearner | _Promote | _Demote | _Remove | _Update


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """What shall be different. Each method returns a longer change; nothing is applied in place.

    ``MembershipChange().add_voter(new).remove(old)`` replaces a member in one step.
    """

    operations: tuple[_Operation, ...] = ()

    def add_voter(self, member: Member) -> MembershipChange:
        """A new member that counts at once. Prefer a learner that is promoted once it has the log."""
        return self._with(_AddVoter(member))

    def add_learner(self, member: Member) -> MembershipChange:
        """A new member that gets the log and does not count (thesis 4.2.1)."""
        return self._with(_AddLearner(member))

    def promote(self, node_id: int) -> MembershipChange:
        """A learner becomes a voter."""
        return self._with(_Promote(node_id))

    def demote(self, node_id: int) -> MembershipChange:
        """A voter becomes a learner."""
        return self._with(_Demote(node_id))

    def remove(self, node_id: int) -> MembershipChange:
        """A member leaves for good; its id is never used again."""
        return self._with(_Remove(node_id))

    def update(self, member: Member) -> MembershipChange:
        """A member's name or addresses change."""
        return self._with(_Update(member))

    def with_ids(self, next_id: Callable[[int], int]) -> MembershipChange:
        """The same change, where each added member without an id (0) gets ``next_id(position)``."""
        operations: list[_Operation] = []
        for position, operation in enumerate(self.operations):
            match operation:
                case _AddVoter(member) | _AddLearner(member) if not member.node_id:
                    named = replace(member, node_id=next_id(position))
                    operations.append(replace(operation, member=named))
                case _:
                    operations.append(operation)
        return MembershipChange(tuple(operations))

    def _with(self, operation: _Operation) -> MembershipChange:
        return MembershipChange((*self.operations, operation))


def changed(membership: Membership, change: MembershipChange) -> Membership:
    """The membership to append for `change`.

    If at most one voter differs, old and new majorities always overlap and the new one rules at
    once (thesis 4.1); otherwise the result is joint (thesis 4.3) and `left_joint` follows once it
    is committed. Raises MembershipRefused.
    """
    if membership.joint:
        raise MembershipRefused("an earlier change is still under way")
    if not change.operations:
        raise MembershipRefused("nothing would change")
    target = membership
    for operation in change.operations:
        target = _operated(target, operation)
    if not target.voters:
        raise MembershipRefused("the last voter cannot be removed")
    # Two voters at once: of A B C to A D E, {B, C} and {D, E} are majorities that share nobody.
    if len(target.voters ^ membership.voters) > 1:
        target = _joint(membership, target)
    check_invariants(target)
    return target


def left_joint(membership: Membership) -> Membership:
    """The membership that ends the joint phase: the new majority rules alone."""
    learners = membership.learners | membership.learners_next
    staying = membership.voters | learners
    leaving = frozenset(membership.node_ids) - staying
    result = replace(
        membership,
        members=tuple(member for member in membership.members if member.node_id in staying),
        voters_outgoing=frozenset(),
        learners=learners,
        learners_next=frozenset(),
        auto_leave=False,
        removed=membership.removed | leaving,
    )
    check_invariants(result)
    return result


def check_invariants(membership: Membership) -> None:
    """Raise RaftInvariantError unless the parts fit together."""
    named = frozenset(membership.node_ids)
    listed = [member.node_id for member in membership.members]
    checks = (
        (listed == sorted(named), "members are exactly those named, sorted"),
        (not named or bool(membership.voters), "there is a voter"),
        (
            not membership.learners & (membership.voters | membership.voters_outgoing),
            "a learner is not a voter",
        ),
        (membership.learners_next <= membership.voters_outgoing, "only outgoing voters become learners"),
        (not membership.learners_next & membership.voters, "who becomes a learner does not stay a voter"),
        (not membership.removed & named, "a removed member is gone"),
        (membership.joint == membership.auto_leave, "the joint phase, and only it, ends by itself"),
    )
    for holds, rule in checks:
        if not holds:
            raise RaftInvariantError("membership", f"{rule}: {membership}")


def _joint(old: Membership, target: Membership) -> Membership:
    """Both majorities rule; who leaves or is demoted stays a voter of the old one until the end."""
    learners = target.learners - old.voters
    named = target.voters | old.voters | learners
    present = {member.node_id: member for member in (*old.members, *target.members)}
    return replace(
        target,
        members=tuple(present[node_id] for node_id in sorted(named)),
        voters_outgoing=old.voters,
        learners=learners,
        learners_next=target.learners & old.voters,
        auto_leave=True,
        removed=target.removed - old.voters,
    )


def _operated(membership: Membership, operation: _Operation) -> Membership:
    match operation:
        case _AddVoter(member):
            return replace(_joined(membership, member), voters=membership.voters | {member.node_id})
        case _AddLearner(member):
            return replace(_joined(membership, member), learners=membership.learners | {member.node_id})
        case _Promote(node_id):
            if node_id not in membership.learners:
                raise MembershipRefused(f"member {node_id:x} is not a learner")
            return replace(
                membership,
                voters=membership.voters | {node_id},
                learners=membership.learners - {node_id},
            )
        case _Demote(node_id):
            if node_id not in membership.voters:
                raise MembershipRefused(f"member {node_id:x} is not a voter")
            return replace(
                membership,
                voters=membership.voters - {node_id},
                learners=membership.learners | {node_id},
            )
        case _Remove(node_id):
            _existing(membership, node_id)
            return replace(
                membership,
                members=tuple(member for member in membership.members if member.node_id != node_id),
                voters=membership.voters - {node_id},
                learners=membership.learners - {node_id},
                removed=membership.removed | {node_id},
            )
        case _Update(member):
            _existing(membership, member.node_id)
            return _with_member(membership, member)
        case _:
            assert_never(operation)


def _existing(membership: Membership, node_id: int) -> Member:
    member = membership.member(node_id)
    if member is None:
        raise MembershipRefused(f"there is no member {node_id:x}")
    return member


def _joined(membership: Membership, member: Member) -> Membership:
    if member.node_id <= 0:
        raise MembershipRefused("a member needs a positive id")
    if member.node_id in membership.removed:
        raise MembershipRefused(f"member {member.node_id:x} was removed; its id is never used again")
    if membership.member(member.node_id) is not None:
        raise MembershipRefused(f"member {member.node_id:x} exists already")
    return _with_member(membership, member)


def _with_member(membership: Membership, member: Member) -> Membership:
    others = [other for other in membership.members if other.node_id != member.node_id]
    for other in others:
        if other.peer_address == member.peer_address:
            raise MembershipRefused(f"{member.peer_address} is the address of member {other.node_id:x}")
    others.append(member)
    return replace(membership, members=tuple(sorted(others, key=lambda other: other.node_id)))


class MembershipHistory:
    """The membership in force at the start of the log, and each one in the log: the last one rules.

    A change rules from the moment it is appended, and no longer if it is truncated (thesis 4.1).
    """

    def __init__(self, memberships: tuple[tuple[int, Membership], ...]) -> None:
        if not memberships:
            raise RaftInvariantError("membership", "a log has a membership at its start")
        self._indexes = [index for index, _ in memberships]
        self._memberships = [membership for _, membership in memberships]

    @property
    def current(self) -> Membership:
        """The membership that rules: the last one appended."""
        return self._memberships[-1]

    @property
    def index(self) -> int:
        """The index at which the membership that rules was appended."""
        return self._indexes[-1]

    @property
    def before(self) -> Membership | None:
        """The one that ruled before it, if that is still known."""
        return self._memberships[-2] if len(self._memberships) > 1 else None

    def at(self, index: int) -> Membership:
        """The one in force once the log up to `index` is."""
        position = bisect_right(self._indexes, index) - 1
        if position < 0:
            raise RaftInvariantError("membership", f"nothing is known at index {index}")
        return self._memberships[position]

    def append(self, index: int, membership: Membership) -> None:
        """It was appended at `index`."""
        self._indexes.append(index)
        self._memberships.append(membership)

    def truncate(self, index: int) -> bool:
        """The log from `index` on is gone. Whether that changed which one rules."""
        keep = len(self._indexes)
        while keep > 1 and self._indexes[keep - 1] >= index:
            keep -= 1
        changed = keep < len(self._indexes)
        del self._indexes[keep:], self._memberships[keep:]
        return changed

    def compact(self, index: int) -> None:
        """The log up to `index` is gone; the one in force there stays."""
        keep_from = bisect_right(self._indexes, index) - 1
        if keep_from > 0:
            del self._indexes[:keep_from], self._memberships[:keep_from]
