"""Callbacks as a machine: `incoming` says what a message is, `on_read` and `on_write` handle it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from connect_kv.framework.replicated import Replicated, command
from connect_kv.framework.types import MessageType, Store

__all__ = ["CALLBACKS", "Messages"]

CALLBACKS = "callbacks"
"""Name of the machine that callbacks make."""


Incoming = Callable[[bytes], MessageType]

Handler = Callable[[bytes], bytes]

StoreHandler = Callable[[bytes, Store], bytes]
"""A handler of a persistent service; its store is of no use after it has returned."""

Snapshot = Callable[[], Iterable[bytes]]

Restore = Callable[[Iterable[bytes]], None]


class Messages(Replicated):
    """What a service of callbacks looks like to its clients: ``call(Messages.send, message=b"...")``."""

    @command
    def send(self, message: bytes) -> bytes:
        """Send a message; `incoming` decides whether it is read or replicated."""
        raise NotImplementedError
