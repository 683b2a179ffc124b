"""Why nothing can be committed, as one member sees it: who would be needed, who answers, what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby

from connect_kv.node.contacts import Contact
from connect_kv.raft.types import Membership

_PLURAL = {
    Contact.SILENT: "do not answer",
    Contact.REFUSED: "refuse connections",
    Contact.UNRESOLVED: "have addresses that cannot be resolved",
    Contact.UNWELCOME: "do not take this member's messages",
    Contact.NEVER_SEEN: "have never been seen",
}


@dataclass(frozen=True, slots=True)
class Majority:
    """One set of voters; in joint consensus there are two, and both are needed."""

    voters: int
    answering: int

    @property
    def needed(self) -> int:
        """How many of them make a majority."""
        return self.voters // 2 + 1

    @property
    def reached(self) -> bool:
        """Whether enough of them answer."""
        return self.answering >= self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Facts first; `text` makes a line of them."""

    leader_id: int | None
    majorities: tuple[Majority, ...]
    missing: tuple[tuple[int, Contact], ...]
    """The voters that do not answer, sorted by id."""
    own: str = ""
    """What keeps this member itself from its part."""

    def text(self, name: Callable[[int], str]) -> str:
        """One line, such as ``no leader: 1 of 3 voters answers, 2 needed; n1, n3 refuse connections``."""
        parts = [_counted(one) for one in self.majorities if not one.reached]
        if not parts and self.leader_id is None:
            parts = [f"{_answer(one)}, an election is under way" for one in self.majorities[:1]]
            parts = parts or ["this member has not been told who the others are"]
        for contact, group in groupby(self._by_contact(), key=lambda one: one[1]):
            names = sorted(name(node_id) for node_id, _ in group)
            wording = contact.value if len(names) == 1 else _PLURAL[contact]
            parts.append(f"{', '.join(names)} {wording}")
        if self.own:
            parts.append(self.own)
        line = "; ".join(parts)
        return f"no leader: {line}" if self.leader_id is None else line

    def _by_contact(self) -> list[tuple[int, Contact]]:
        order = list(Contact)
        return sorted(self.missing, key=lambda one: order.index(one[1]))


def outage(
    membership: Membership,
    contacts: Mapping[int, Contact],
    *,
    node_id: int,
    leader_id: int | None,
    own: str,
) -> Outage | None:
    """None if this member knows of nothing that is wrong.

    `membership` is the one in force, `contacts` how it stands with each other member of it; `own` is
    what is wrong with this one, for example that its disk does not answer.
    """
    answering = {other for other, contact in contacts.items() if contact is Contact.ANSWERS} | {node_id}
    sets = (membership.voters, membership.voters_outgoing)
    majorities = tuple(Majority(len(voters), len(voters & answering)) for voters in sets if voters)
    if leader_id in (None, node_id):
        well = leader_id is not None and not own and all(one.reached for one in majorities)
        asked = membership.voters | membership.voters_outgoing
    else:
        well = leader_id in answering
        asked = frozenset({leader_id}) if leader_id is not None else frozenset()
        majorities, own = (), ""
    if well:
        return None
    missing = tuple((other, contacts[other]) for other in sorted(asked - answering) if other in contacts)
    return Outage(leader_id=leader_id, majorities=majorities, missing=missing, own=own)


def _answer(majority: Majority) -> str:
    verb = "answers" if majority.answering == 1 else "answer"
    return f"{majority.answering} of {majority.voters} voters {verb}"


def _counted(majority: Majority) -> str:
    return f"{_answer(majority)}, {majority.needed} needed"
