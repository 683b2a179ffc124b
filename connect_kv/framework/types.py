"""Words of the framework that servers and clients share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

READY_MADE = (
    "Barrier", "Counter", "Dict", "List", "Lock", "PriorityQueue", "Queue", "RateLimiter", "Semaphore", "Set",
)  # fmt: skip
"""Classes of `connect_kv.types`, which go by their names alone."""


class MessageType(Enum):
    """What `incoming` says a message is."""

    READ = "read"
    """Answered by `on_read` on one member, after everything acknowledged before it."""
    WRITE = "write"
    """Replicated, then given to `on_write` on every member in the same order."""


class ServiceType(Enum):
    """Where a service of callbacks keeps its state."""

    IN_MEMORY = "in-memory"
    """In the process: rebuilt from the log, or from the last snapshot where the service can make one."""
    PERSISTENT = "persistent"
    """In a store on disk that the callbacks receive: its changes and the log position are one batch."""


class Kind(Enum):
    """What a method of a machine is."""

    COMMAND = "command"
    QUERY = "query"


MARK = "__connect_kv_mark__"
"""The attribute of a function that makes it a command or a query."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What `command`, `query` and `before` say of a function."""

    kind: Kind
    since: int = 1
    until: int | None = None
    """It belongs to the versions ``[since, until)`` of its class; None: to all from then on."""
    raises: tuple[type[Exception], ...] = ()
    of: str | None = None
    """It is an older body of the method of that name."""
