"""The space the key/value data may take: what does not fit any more is refused, and the alarm raised.

What counts is the state database's size on disk. It is measured now and then, and what was let in
since is added; far from the limit a request costs one look at a flag.
"""

from __future__ import annotations

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

    def admit_put(self, request: PutRequest) -> None:
        """Raises Refused if it does not fit."""
        if self.close:
            self._admit(_put_cost(request))

    def admit_txn(self, request: TxnRequest) -> None:
        """The same for what its larger branch puts."""
        if self.close:
            self._admit(_txn_cost(request))

    def admit_lease(self) -> None:
        """The same for a new lease."""
        if self.close:
            self._admit(_LEASE_BYTES)

    def admit(self, command: Command) -> None:
        """The same for a command of a session; most kinds need no space."""
        match command.WhichOneof("request"):
            case "put":
                self.admit_put(command.put)
            case "txn":
                self.admit_txn(command.txn)
            case "lease_grant":
                self.admit_lease()

    async def run(self) -> None:
        """Measure again and again, until cancelled."""
        while self.limit >= 0:
            before = self._since
            self._size = await self._measure()
            self._since -= before
            self.close = self._size + self._since + MARGIN >= self.limit
            await self._clock.sleep(MEASURE_SECONDS)

    def _admit(self, cost: int) -> None:
        if not cost:
            return
        if self._size + self._since + cost >= self.limit:
            self._exceeded()
            raise etcd_errors.NO_SPACE.error()
        self._since += cost


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
