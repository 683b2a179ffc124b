"""How the other members are reached, why nothing can be committed, and what a node shows of itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Generic, TypeVar

from connect_kv.interfaces import Clock
from connect_kv.node.context import NodeContext
from connect_kv.node.health import Leadership
from connect_kv.peer_protocol import HelloVerdict, Loss
from connect_kv.raft.status import RaftStatus
from connect_kv.raft.types import Membership

R = TypeVar("R")


logger = logging.getLogger(__name__)


class Contact(Enum):
    """How it stands with another member."""

    ANSWERS = "answers"
    SILENT = "does not answer"
    REFUSED = "refuses connections"
    UNRESOLVED = "has an address that cannot be resolved"
    UNWELCOME = "does not take this member's messages"
    NEVER_SEEN = "has never been seen"


_OF_LOSS = {
    Loss.REFUSED: Contact.REFUSED,
    Loss.UNRESOLVED: Contact.UNRESOLVED,
    Loss.SILENT: Contact.SILENT,
}


@dataclass(slots=True)
class _Seen:
    message: float | None = None
    """When a message of it last came."""
    sign: float | None = None
    """When a message of it, or a greeting in either direction, last came."""
    trouble: Contact | None = None
    """What went wrong since."""


class Contacts:
    """By member id. Whatever comes from a member ends the trouble with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    def message(self, node_id: int) -> None:
        """A message came from that member: it lives, and there is no trouble with it."""
        seen = self._of(node_id)
        seen.message = seen.sign = self._clock.now()
        seen.trouble = None

    def greeted(self, node_id: int) -> None:
        """It said hello and is welcome here."""
        seen = self._of(node_id)
        seen.sign, seen.trouble = self._clock.now(), None

    def replied(self, node_id: int, verdict: HelloVerdict) -> None:
        """It answered this member's hello, and so it lives."""
        seen = self._of(node_id)
        seen.sign = self._clock.now()
        # To whom this member is unknown, that one lags behind and will hear of it.
        welcome = verdict in (HelloVerdict.WELCOME, HelloVerdict.UNKNOWN_MEMBER)
        seen.trouble = None if welcome else Contact.UNWELCOME

    def lost(self, node_id: int, loss: Loss) -> None:
        """Messages to that member were lost."""
        if loss is not Loss.DROPPED:
            self._of(node_id).trouble = _OF_LOSS[loss]

    def messages_since(self, moment: float) -> frozenset[int]:
        """Members of which a message came after that time of the clock."""
        return frozenset(
            node_id
            for node_id, seen in self._seen.items()
            if seen.message is not None and seen.message > moment
        )

    def silence(self, node_id: int) -> float | None:
        """Seconds since its last message; None if none has come."""
        seen = self._seen.get(node_id)
        return None if seen is None or seen.message is None else self._clock.now() - seen.message

    def of(self, node_id: int, *, known: bool, patience: float | None) -> Contact:
        """How it stands. `known`: whether it was met in an earlier life of this process. With `patience`,
        a member that should have said something in so many seconds, and did not, is silent.
        """
        seen = self._of(node_id)
        if seen.sign is None:
            return (seen.trouble or Contact.SILENT) if known else Contact.NEVER_SEEN
        if seen.trouble is not None:
            return seen.trouble
        overdue = patience is not None and self._clock.now() - seen.sign > patience
        return Contact.SILENT if overdue else Contact.ANSWERS

    def _of(self, node_id: int) -> _Seen:
        seen = self._seen.get(node_id)
        if seen is None:
            seen = self._seen[node_id] = _Seen()
        return seen


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


_SILENT_TIMEOUTS = 4
"""Election timeouts without a word of a member after which it counts as silent."""

_OUTAGE_TIMEOUTS = 3
"""Election timeouts without a leader after which the log says why there is none."""

_PAUSE_SECONDS = 10.0
"""Between two such lines, while members come and go."""


class Availability(Generic[R]):
    """Looked at when somebody asks, and once in each election timeout for the log."""

    def __init__(
        self,
        context: NodeContext[R],
        contacts: Contacts,
        leadership: Leadership,
        *,
        disk_sick: Callable[[], bool],
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._leadership = leadership
        self._disk_sick = disk_sick
        self._last_logged = ""
        self._not_before = -math.inf

    def outage(self) -> Outage | None:
        """Why nothing can be committed, as far as is known here."""
        core = self._context.core
        return outage(
            core.membership,
            self.contact_with_all(),
            node_id=self._context.identity.node_id,
            leader_id=core.leader_id,
            own=self._own_trouble(),
        )

    def contact_with_all(self) -> dict[int, Contact]:
        """How it stands with each other member. A follower hears of its leader; of others by chance."""
        core, log = self._context.core, self._context.log
        # Without a leader each voter is asked for its vote at least every second election timeout.
        elsewhere = core.leader_id is not None and not self._leadership.leads
        patience = None if elsewhere else _SILENT_TIMEOUTS * self._context.config.election_seconds
        return {
            node_id: self._contacts.of(
                node_id, known=log.noted_directory(node_id) is not None, patience=patience
            )
            for node_id in core.membership.node_ids
            if node_id != self._context.identity.node_id
        }

    def log(self) -> None:
        """Say once why there is no leader, if that lasts, and again when it is for another reason."""
        leaderless = self._leadership.leaderless_for()
        if not leaderless:
            self._last_logged, self._not_before = "", -math.inf
            return
        now = self._context.clock.now()
        if leaderless < _OUTAGE_TIMEOUTS * self._context.config.election_seconds or now < self._not_before:
            return
        found = self.outage()
        text = "" if found is None else found.text(self._name)
        if text and text != self._last_logged:
            self._last_logged, self._not_before = text, now + _PAUSE_SECONDS
            logger.warning("nothing can be committed", extra={"reason": text})

    def _own_trouble(self) -> str:
        if self._disk_sick():
            return "this member's disk does not answer"
        if not self._context.log.confirmed:
            return "this member does not vote yet: too few others have noted its data directory"
        return ""

    def _name(self, node_id: int) -> str:
        """As the membership has it: an address, before the member has a name."""
        member = self._context.core.membership.member(node_id)
        return f"{node_id:x}" if member is None else member.name or member.peer_address


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node at one moment."""

    raft: RaftStatus
    durable_index: int
    """Up to where the state is known to be on disk."""
    confirmed: bool
    """Whether a majority has noted this data directory, so that this node votes."""
    disk_sick: bool
    """Whether the log's disk does not answer."""
