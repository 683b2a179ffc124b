"""Words of the framework that servers and clients share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

__all__ = ["MessageType", "ServiceType", "Store"]

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


class MethodKind(Enum):
    """What a method of a machine is."""

    COMMAND = "command"
    QUERY = "query"


MARK = "__connect_kv_mark__"
"""The attribute of a function that makes it a command or a query."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What `command`, `query` and `before` say of a function."""

    kind: MethodKind
    since: int = 1
    until: int | None = None
    """It belongs to the versions ``[since, until)`` of its class; None: to all from then on."""
    raises: tuple[type[Exception], ...] = ()
    of: str | None = None
    """It is an older body of the method of that name."""


class Store(Protocol):
    """Ordered bytes of one machine on disk. Only machines that are `persistent` receive it."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def iterate(
        self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < stop`` in key order (None: to the end), or backwards."""

    def put(self, key: bytes, value: bytes) -> None:
        """Set it. Refused (PermissionError) while a message is only read."""

    def delete(self, key: bytes) -> None:
        """Remove it, if there. Refused likewise."""
