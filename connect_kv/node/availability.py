"""Whether this member can have anything committed, how it stands with the others, and what the log says."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from connect_kv.node.contacts import Contact, Contacts
from connect_kv.node.leadership import Leadership
from connect_kv.node.outage import Outage, outage
from connect_kv.node.parts import Parts

R = TypeVar("R")

logger = logging.getLogger(__name__)

_SILENT_TIMEOUTS = 4
"""Election timeouts without a word of a member after which it counts as silent."""
_OUTAGE_TIMEOUTS = 3
"""Election timeouts without a leader after which the log says why there is none."""
_PAUSE_SECONDS = 10.0
"""Between two such lines, while members come and go."""


class Availability(Generic[R]):
    """Looked at when somebody asks, and once in each election timeout for the log."""

    def __init__(
        self, parts: Parts[R], contacts: Contacts, leadership: Leadership, *, disk_sick: Callable[[], bool]
    ) -> None:
        self._parts = parts
        self._contacts = contacts
        self._leadership = leadership
        self._disk_sick = disk_sick
        self._told = ""
        self._not_before = -math.inf

    def outage(self) -> Outage | None:
        """Why nothing can be committed, as far as is known here."""
        core = self._parts.core
        return outage(
            core.membership,
            self.contact_with_all(),
            node_id=self._parts.identity.node_id,
            leader_id=core.leader_id,
            own=self._own_trouble(),
        )

    def contact_with_all(self) -> dict[int, Contact]:
        """How it stands with each other member. A follower hears of its leader; of others by chance."""
        core, log = self._parts.core, self._parts.log
        # Without a leader each voter is asked for its vote at least every second election timeout.
        elsewhere = core.leader_id is not None and not self._leadership.leads
        patience = None if elsewhere else _SILENT_TIMEOUTS * self._parts.config.election_seconds
        return {
            node_id: self._contacts.of(
                node_id, known=log.noted_directory(node_id) is not None, patience=patience
            )
            for node_id in core.membership.node_ids
            if node_id != self._parts.identity.node_id
        }

    def log(self) -> None:
        """Say once why there is no leader, if that lasts, and again when it is for another reason."""
        leaderless = self._leadership.leaderless_for()
        if not leaderless:
            self._told, self._not_before = "", -math.inf
            return
        now = self._parts.clock.now()
        if leaderless < _OUTAGE_TIMEOUTS * self._parts.config.election_seconds or now < self._not_before:
            return
        found = self.outage()
        text = "" if found is None else found.text(self._name)
        if text and text != self._told:
            self._told, self._not_before = text, now + _PAUSE_SECONDS
            logger.warning("nothing can be committed", extra={"reason": text})

    def _own_trouble(self) -> str:
        if self._disk_sick():
            return "this member's disk does not answer"
        if not self._parts.log.confirmed:
            return "this member does not vote yet: too few others have noted its data directory"
        return ""

    def _name(self, node_id: int) -> str:
        """As the membership has it: an address, before the member has a name."""
        member = self._parts.core.membership.member(node_id)
        return f"{node_id:x}" if member is None else member.name or member.peer_address
