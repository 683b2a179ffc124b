"""What each caller does over and over."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connect_kv.bench.targets import LoadTarget

Operation = Callable[[int], Awaitable[object]]
"""Does operation number n."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShape:
    """What keys and values look like."""

    value_size: int = 256
    key_space: int = 100_000
    """Different keys; they are taken in an order that looks random and is the same each time."""
    first: int = 0
    """Number of the first of them."""
    reads: float = 0.9
    """Part of reads in ``mixed``."""
    pairs: int = 128
    """How many puts one transaction has."""
    seed: int = 1

    def key(self, number: int) -> bytes:
        """The key of operation `number`."""
        return b"bench/%012d" % (self.first + number * 7919 % self.key_space)

    def value(self) -> bytes:
        """Bytes that do not compress."""
        return random.Random(self.seed).randbytes(self.value_size)


def operation(name: str, door: LoadTarget, shape: KeyShape) -> Operation:
    """The operation of that name. Raises KeyError."""
    return _MAKERS[name](door, shape)


def _put(door: LoadTarget, shape: KeyShape) -> Operation:
    value = shape.value()
    return lambda number: door.put(shape.key(number), value)


def _range(door: LoadTarget, shape: KeyShape) -> Operation:
    return lambda number: door.get(shape.key(number), serializable=False)


def _serializable(door: LoadTarget, shape: KeyShape) -> Operation:
    return lambda number: door.get(shape.key(number), serializable=True)


class Mixed:
    """Reads, and puts in between, which are counted once they are acknowledged."""

    def __init__(self, door: LoadTarget, shape: KeyShape) -> None:
        self.acknowledged = 0
        self._put, self._read = _put(door, shape), _range(door, shape)
        self._reads, self._rng = shape.reads, random.Random(shape.seed)

    def __call__(self, number: int) -> Awaitable[object]:
        """Operation `number`."""
        return self._read(number) if self._rng.random() < self._reads else self._write(number)

    async def _write(self, number: int) -> None:
        await self._put(number)
        self.acknowledged += 1


def _txn(door: LoadTarget, shape: KeyShape) -> Operation:
    value = shape.value()

    def transaction(number: int) -> Awaitable[object]:
        first = shape.first + number * shape.pairs
        keys = dict.fromkeys(b"bench/%012d" % (first + i) for i in range(shape.pairs))
        return door.transaction([(key, value) for key in keys])

    return transaction


def _counter(door: LoadTarget, shape: KeyShape) -> Operation:
    return lambda number: door.increment()


_MAKERS: dict[str, Callable[[LoadTarget, KeyShape], Operation]] = {
    "put": _put,
    "range": _range,
    "serializable": _serializable,
    "mixed": Mixed,
    "txn": _txn,
    "counter": _counter,
}

NAMES = tuple(_MAKERS)
WRITES_ONE_REVISION = frozenset({"put", "txn"})
"""Each acknowledged operation made one revision: that can be checked at the end."""


def acknowledged(name: str, operation: Operation, succeeded: int) -> int | None:
    """Writes that were, of so many operations of that name; None where they make no revision each."""
    if isinstance(operation, Mixed):
        return operation.acknowledged
    return succeeded if name in WRITES_ONE_REVISION else None
