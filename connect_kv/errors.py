"""One class for each failure a caller can act on; each says what to do next."""

from __future__ import annotations

__all__ = [
    "BadCall",
    "ClientNotOpen",
    "CommandFailed",
    "Compacted",
    "ConfigError",
    "ConnectKvError",
    "NotHeld",
    "OutcomeUnknown",
    "Overloaded",
    "Refused",
    "RefusedToStart",
    "RequestTooLarge",
    "SessionExpired",
    "StorageError",
    "Unavailable",
]


class ConnectKvError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(ConnectKvError):
    """A configuration is missing, malformed or contradictory. Names the file, line or key. Correct it."""


class RefusedToStart(ConnectKvError):
    """The node must not run with this directory, address or membership. Says why and what to do."""


class StorageError(ConnectKvError):
    """A database on disk failed or is damaged; names it. The process must end; see docs/operations.md."""

    def __init__(self, database: str, reason: str) -> None:
        super().__init__(f"{database}: {reason}")
        self.database = database
        self.reason = reason


class StorageInUse(StorageError):
    """Another process has the database open. Stop that one, or use another directory."""


class CorruptStorage(StorageError):
    """What is on disk is not what was written. Restore the member from its peers."""


class UnknownEntry(ConnectKvError):
    """The log holds an entry this version cannot apply. Upgrade this member; nothing was skipped."""


class NodeStopped(ConnectKvError):
    """This node is shutting down or has failed. Try another."""


class NoLeader(ConnectKvError):
    """No leader is known, so nothing was proposed. Retry, here or elsewhere."""


class Overloaded(ConnectKvError):
    """Too much is waiting already, so nothing was proposed. Retry later."""


class RequestTooLarge(ConnectKvError):
    """The request exceeds the limit, so nothing was proposed. Make it smaller."""


class NotProposed(ConnectKvError):
    """The proposal certainly never took effect and never will. Safe to retry."""


class OutcomeUnknown(ConnectKvError):
    """The request may or may not take effect. Only a session may safely send it again."""


class TimedOut(ConnectKvError, TimeoutError):
    """A read did not get through in time; says why, if that is known. Retry."""


class SessionExpired(OutcomeUnknown):
    """The session is gone: whether its unanswered calls took effect is unknown."""


class Unavailable(ConnectKvError):
    """No member answered in time; the request did not and will not take effect. Retry."""


class ClientNotOpen(ConnectKvError, RuntimeError):
    """The client was not opened, or was closed, and nothing was done: open it, do not just retry."""


class NotHeld(ConnectKvError, RuntimeError):
    """The lock or election was not entered. A mistake of the program."""


class CommandFailed(ConnectKvError):
    """A machine's command or query raised. `type` and `message` are those of its exception.

    `type` has its module in front, unless Python itself has the class.
    """

    def __init__(self, type: str, message: str, details: bytes = b"") -> None:
        super().__init__(f"{type}: {message}" if type else message)
        self.type = type
        self.message = message
        self.details = details
        """What a declared exception holds, as data."""


class MachineSuspended(ConnectKvError):
    """A machine cannot go on on the member that was asked; its other machines, and its keys, do. Ask another.

    If its outcome is unknown, that is said. Names the machine, the entry of the log, and what to do.
    """


class BadCall(ConnectKvError):
    """Unknown machine or method, or arguments of the wrong type; nothing was replicated."""


class Refused(ConnectKvError):
    """A request of the etcd API was refused; `code` is the gRPC status number, the text is etcd's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Compacted(Refused):
    """That revision is compacted away; the oldest still kept is `revision` (0: not told). Read anew."""

    def __init__(self, message: str, revision: int = 0) -> None:
        super().__init__(11, message)
        self.revision = revision


class NotLeader(ConnectKvError):
    """Only the leader can do this; `leader_id` says who that is, if known."""

    def __init__(self, leader_id: int | None) -> None:
        super().__init__("not the leader" if leader_id is None else f"not the leader; that is {leader_id:x}")
        self.leader_id = leader_id


class MembershipRefused(ConnectKvError):
    """This change of membership is not allowed, or not now; says why."""


class MemberRemoved(ConnectKvError):
    """This node was removed from its cluster. Its directory can be deleted; its id is never used again."""
