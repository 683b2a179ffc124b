"""Why nothing can be committed is told in one line, from what a member knows of the others."""

from __future__ import annotations

import pytest

from connect_kv.node.status import Contact, Contacts, outage
from connect_kv.peer_protocol import HelloVerdict, Loss
from connect_kv.raft.types import Member, Membership


class Hands:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> int:
        return 0

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def of(*voters: int, outgoing: tuple[int, ...] = (), learners: tuple[int, ...] = ()) -> Membership:
    named = sorted({*voters, *outgoing, *learners})
    return Membership(
        members=tuple(Member(node_id=one, name=f"n{one}", peer_address=f"h:{one}") for one in named),
        voters=frozenset(voters),
        voters_outgoing=frozenset(outgoing),
        learners=frozenset(learners),
        auto_leave=bool(outgoing),
    )


def line(
    membership: Membership,
    contacts: dict[int, Contact],
    *,
    node_id: int = 2,
    leader_id: int | None = None,
    own: str = "",
) -> str | None:
    found = outage(membership, contacts, node_id=node_id, leader_id=leader_id, own=own)
    return None if found is None else found.text(lambda one: f"n{one}")


YES, NO, REFUSED, NEVER = Contact.ANSWERS, Contact.SILENT, Contact.REFUSED, Contact.NEVER_SEEN


@pytest.mark.parametrize(
    ("membership", "contacts", "text"),
    [
        (
            of(1, 2, 3),
            {1: REFUSED, 3: REFUSED},
            "no leader: 1 of 3 voters answers, 2 needed; n1, n3 refuse connections",
        ),
        (of(1, 2), {1: NEVER}, "no leader: 1 of 2 voters answers, 2 needed; n1 has never been seen"),
        (
            of(1, 2, 3, 4, 5),
            {1: YES, 3: NO, 4: REFUSED, 5: NO},
            "no leader: 2 of 5 voters answer, 3 needed; n3, n5 do not answer; n4 refuses connections",
        ),
        (
            of(1, 2, 3),
            {1: YES, 3: NO},
            "no leader: 2 of 3 voters answer, an election is under way; n3 does not answer",
        ),
        (
            of(1, 2, outgoing=(2, 3), learners=(4,)),
            {1: YES, 3: NO, 4: NO},
            "no leader: 1 of 2 voters answers, 2 needed; n3 does not answer",
        ),
        (of(1, 3), {1: NO, 3: NO}, "no leader: 0 of 2 voters answer, 2 needed; n1, n3 do not answer"),
        (Membership(), {}, "no leader: this member has not been told who the others are"),
    ],
)
def test_without_a_leader_it_says_who_is_missing(
    membership: Membership, contacts: dict[int, Contact], text: str
) -> None:
    assert line(membership, contacts) == text


def test_a_leader_names_who_is_missing_only_if_it_needs_them() -> None:
    assert line(of(1, 2, 3), {1: YES, 3: NO}, leader_id=2) is None
    assert (
        line(of(1, 2), {1: NEVER}, leader_id=2) == "1 of 2 voters answers, 2 needed; n1 has never been seen"
    )
    sick = line(of(1, 2, 3), {1: YES, 3: YES}, leader_id=2, own="this member's disk does not answer")
    assert sick == "this member's disk does not answer"


def test_a_follower_asks_nothing_of_others_than_its_leader() -> None:
    assert line(of(1, 2, 3), {1: YES, 3: NO}, leader_id=1) is None
    assert line(of(1, 2, 3), {1: NO, 3: YES}, leader_id=1) == "n1 does not answer"


def stands(contacts: Contacts, *, known: bool = False, patience: float | None = None) -> Contact:
    return contacts.of(1, known=known, patience=patience)


def test_whatever_comes_from_a_member_ends_the_trouble_with_it() -> None:
    contacts = Contacts(Hands())
    assert stands(contacts) is Contact.NEVER_SEEN
    assert stands(contacts, known=True) is Contact.SILENT
    contacts.lost(1, Loss.REFUSED)
    assert stands(contacts) is Contact.NEVER_SEEN
    assert stands(contacts, known=True) is Contact.REFUSED
    contacts.greeted(1)
    assert stands(contacts) is Contact.ANSWERS
    contacts.lost(1, Loss.UNRESOLVED)
    assert stands(contacts) is Contact.UNRESOLVED
    contacts.message(1)
    assert stands(contacts) is Contact.ANSWERS
    contacts.lost(1, Loss.DROPPED)
    assert stands(contacts) is Contact.ANSWERS
    contacts.replied(1, HelloVerdict.WRONG_CLUSTER)
    assert stands(contacts) is Contact.UNWELCOME
    contacts.replied(1, HelloVerdict.UNKNOWN_MEMBER)
    assert stands(contacts) is Contact.ANSWERS


def test_a_member_that_should_have_spoken_is_silent() -> None:
    clock = Hands()
    contacts = Contacts(clock)
    contacts.message(1)
    clock.at += 5
    assert stands(contacts, patience=4) is Contact.SILENT
    assert stands(contacts, patience=6) is Contact.ANSWERS
    assert stands(contacts) is Contact.ANSWERS
    assert contacts.messages_since(99) == {1}
    assert contacts.messages_since(100) == frozenset()
