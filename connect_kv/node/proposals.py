"""Proposals waiting to be appended, joined into one log entry per write of the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from connect_kv.errors import NoLeader, Overloaded, RequestTooLarge
from connect_kv.events import gradually
from connect_kv.node.config import NodeConfig
from connect_kv.protowire import varint

R = TypeVar("R")


@dataclass(slots=True)
class Waiting(Generic[R]):
    """One proposal: a caller's of this node (`future`), or one that a follower passed on (`source`)."""

    payload: bytes
    count: int
    since: float
    """When it arrived, on this node's clock."""
    future: asyncio.Future[Sequence[R]] | None = None
    source: int = 0
    id: int = 0
    """The follower's name for it."""

    @property
    def abandoned(self) -> bool:
        """Whether its caller has given up."""
        return self.future is not None and self.future.done()

    def fail(self, error: Exception) -> None:
        """Tell the caller, if it is one of this node."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class ProposalQueue(Generic[R]):
    """In order of arrival, bounded in bytes and commands."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._waiting: deque[Waiting[R]] = deque()
        self.size = 0
        """Bytes waiting."""
        self.commands = 0
        """Commands waiting."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full_batch(self) -> bool:
        """Whether enough waits to fill an entry."""
        return self.size >= self._config.max_batch_bytes or self.commands >= self._config.max_batch_commands

    def put(self, waiting: Waiting[R]) -> None:
        """Append it. Raises RequestTooLarge, Overloaded; nothing was proposed then."""
        size = len(waiting.payload)
        if size > self._config.max_request_bytes:
            raise RequestTooLarge(
                f"{size} bytes in one proposal; {self._config.max_request_bytes} are allowed"
            )
        if (
            self.size + size > self._config.max_waiting_bytes
            or self.commands + waiting.count > self._config.max_waiting_commands
        ):
            raise Overloaded(f"{self.commands} commands of {self.size} bytes are waiting already")
        self._waiting.append(waiting)
        self.size += size
        self.commands += waiting.count

    def take(self) -> list[Waiting[R]]:
        """The next batch: the first, and more while they fit into one entry. Empty if none waits."""
        batch: list[Waiting[R]] = []
        size = commands = 0
        while self._waiting:
            first = self._waiting[0]
            if not first.abandoned:
                size += len(first.payload)
                commands += first.count
                if batch and (
                    size > self._config.max_batch_bytes or commands > self._config.max_batch_commands
                ):
                    break
                batch.append(first)
            self._remove_first()
        return batch

    def put_back(self, batch: Iterable[Waiting[R]]) -> None:
        """They come first again, in their order; the bounds do not apply."""
        for waiting in reversed(list(batch)):
            self._waiting.appendleft(waiting)
            self.size += len(waiting.payload)
            self.commands += waiting.count

    def remove_forwarded(self) -> list[Waiting[R]]:
        """Take out what other members passed on: this node is not the leader any more."""
        return self._remove(lambda waiting: waiting.future is None)

    def expire(self, before: float) -> None:
        """No leader is known: callers who arrived at or before that time are told NoLeader."""
        gradually(
            self._remove(lambda waiting: waiting.since <= before),
            lambda waiting: waiting.fail(NoLeader("no leader is known; nothing was proposed")),
        )

    def fail(self, error: Callable[[], Exception]) -> None:
        """Tell all and forget them."""
        for waiting in self._remove(lambda waiting: True):
            waiting.fail(error())

    def _remove(self, which: Callable[[Waiting[R]], bool]) -> list[Waiting[R]]:
        everything, self._waiting = self._waiting, deque()
        self.size = self.commands = 0
        taken = [waiting for waiting in everything if which(waiting)]
        if taken:
            self.put_back(waiting for waiting in everything if not which(waiting))
        else:
            self.put_back(everything)
        return taken

    def _remove_first(self) -> None:
        first = self._waiting.popleft()
        self.size -= len(first.payload)
        self.commands -= first.count


def join(batch: Iterable[Waiting[R]], log_time: int, elapsed: int = 0) -> bytes:
    """One CommandBatch of them all, stamped with the leader's wall clock (nanoseconds since 1970) and
    with what leaders have measured (nanoseconds; 0: not said).

    Encoded batches merge by concatenation, so nothing is parsed (command.proto).
    """
    parts = [waiting.payload for waiting in batch]
    parts.append(_stamp(1, log_time))
    if elapsed:
        parts.append(_stamp(3, elapsed))
    return b"".join(parts)


def _stamp(field: int, value: int) -> bytes:
    """A field of a CommandBatch that is a varint, encoded."""
    return bytes((field << 3,)) + varint(value)
