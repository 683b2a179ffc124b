"""What this member knows of how each other one is reached: when it was heard last, what was lost since."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from connect_kv.interfaces import Clock
from connect_kv.peer_protocol import HelloVerdict, Loss


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
    """The same of a message, or of a greeting in either direction."""
    trouble: Contact | None = None
    """What went wrong since."""


class Contacts:
    """By member id. Whatever comes from a member ends the trouble with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[int, _Seen] = {}

    def message(self, node_id: int) -> None:
        """One came from it."""
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
        """Messages to it were."""
        if loss is not Loss.DROPPED:
            self._of(node_id).trouble = _OF_LOSS[loss]

    def messages_since(self, moment: float) -> frozenset[int]:
        """Members of which a message came after that time of the clock."""
        return frozenset(
            node_id
            for node_id, seen in self._seen.items()
            if seen.message is not None and seen.message > moment
        )

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
        return self._seen.setdefault(node_id, _Seen())
