"""The space the key/value data may take: what does not fit any more is refused, and the alarm raised.

What counts is the state database's size on disk. It is measured now and then, and what was let in
since is added; far from the limit a request costs one look at a flag. Nothing is refused by an old
measurement: before that it is measured anew, for a compaction or a defragmentation may just have made room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from connect_kv import etcd_errors
from connect_kv.interfaces import Clock
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import PutRequest, RequestOp, TxnRequest

MEASURE_SECONDS = 1.0
MARGIN = 64 << 20
"""More than can be let in between two measurements."""
_PUT_BYTES = 256
_LEASE_BYTES = 64


class Quota:
    """Of one member; `run` is its task."""

    def __init__(
        self,
        limit: int,
        *,
        clock: Clock,
        measure: Callable[[], Awaitable[int]],
        exceeded: Callable[[], None],
    ) -> None:
        """`limit` in bytes, negative: none. `exceeded` is told whenever a request was refused."""
        self.limit = limit
        self.close = 0 <= limit <= MARGIN
        """Whether so little is left that each request must be looked at."""
        self._clock = clock
        self._measure = measure
        self._exceeded = exceeded
        self._size = 0
        self._since = 0
        """What was let in since that measurement began."""
        self._begun = 0
        """Measurements."""
        self._turn = asyncio.Lock()

    async def admit_put(self, request: PutRequest) -> None:
        """Raises Refused if it does not fit."""
        if self.close:
            await self._admit_after_a_look(_put_cost(request))

    def admits_put(self, request: PutRequest) -> bool:
        """Whether it fits by what is known: then it is let in. If not, `admit_put` has to look again."""
        return not self.close or self._admits(_put_cost(request))

    def admits_txn(self, request: TxnRequest) -> bool:
        """Whether what its larger branch puts fits by what is known; `admit_txn` looks again."""
        return not self.close or self._admits(_txn_cost(request))

    def admits_lease(self) -> bool:
        """Whether a new lease fits by what is known; `admit_lease` looks again."""
        return not self.close or self._admits(_LEASE_BYTES)

    async def admit_txn(self, request: TxnRequest) -> None:
        """Let in what its larger branch puts. Raises Refused when there is no space for it."""
        if self.close:
            await self._admit_after_a_look(_txn_cost(request))

    async def admit_lease(self) -> None:
        """Let in a new lease. Raises Refused when there is no space for it."""
        if self.close:
            await self._admit_after_a_look(_LEASE_BYTES)

    async def make_room(self, commands: Iterable[Command]) -> None:
        """Measure anew if these do not all fit by what is known; then `admit` each of them."""
        if self.close and not self.fits(sum(map(_cost, commands))):
            await self._look()

    def admit(self, command: Command) -> None:
        """A command of a session; most kinds need no space. Raises Refused if it does not fit."""
        if self.close:
            self._admit(_cost(command))

    async def run(self) -> None:
        """Measure again and again, until cancelled."""
        while self.limit >= 0:
            await self._look()
            await self._clock.sleep(MEASURE_SECONDS)

    async def _look(self) -> None:
        """Know a measurement that began after this call; who comes meanwhile shares the next one."""
        begun = self._begun
        async with self._turn:
            if self._begun != begun:
                return
            self._begun += 1
            before = self._since
            self._size = await self._measure()
            self._since -= before
            self.close = self._size + self._since + MARGIN >= self.limit

    async def _admit_after_a_look(self, cost: int) -> None:
        if not self.fits(cost):
            await self._look()
        self._admit(cost)

    def fits(self, cost: int) -> bool:
        """Whether that many bytes more would be taken, by what was measured last."""
        return not cost or self._size + self._since + cost < self.limit

    def _admit(self, cost: int) -> None:
        if not self._admits(cost):
            self._exceeded()
            raise etcd_errors.NO_SPACE.error()

    def _admits(self, cost: int) -> bool:
        fits = self.fits(cost)
        if fits:
            self._since += cost
        return fits


def _cost(command: Command) -> int:
    match command.WhichOneof("request"):
        case "put":
            return _put_cost(command.put)
        case "txn":
            return _txn_cost(command.txn)
        case "lease_grant":
            return _LEASE_BYTES
        case _:
            return 0


def _put_cost(request: PutRequest) -> int:
    return _PUT_BYTES + len(request.key) + len(request.value)


def _txn_cost(request: TxnRequest) -> int:
    return max(_branch_cost(request.success), _branch_cost(request.failure))


def _branch_cost(branch: Iterable[RequestOp]) -> int:
    cost = 0
    for op in branch:
        if op.HasField("request_put"):
            cost += _put_cost(op.request_put)
        elif op.HasField("request_txn"):
            cost += _txn_cost(op.request_txn)
    return cost
