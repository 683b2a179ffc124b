"""Gets that come together share one read barrier, and one view of the database a turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from connect_kv.kv.gets import is_plain
from connect_kv.kv.machine import KvMachine
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.services.access import Access
from connect_kv.services.asked import Asked, all_failed
from connect_kv.services.executor import Replica
from connect_kv.services.turns import Turns

_AT_ONCE = 64
"""Keys read of one view, between two looks at the clock."""


class Gets:
    """The batch form of Range. What is more than one key as it is now is asked alone: it may be large."""

    def __init__(self, replica: Replica, kv: KvMachine, access: Access, turns: Turns) -> None:
        """In `turns` is read and answered."""
        self._replica = replica
        self._kv = kv
        self._access = access
        self._turns = turns

    def many(self, calls: Iterable[Asked[RangeRequest]]) -> None:
        """See `services.asked.Many`."""
        replica, access = self._replica, self._access
        here: list[Asked[RangeRequest]] = []
        behind: list[Asked[RangeRequest]] = []
        for one in calls:
            try:
                request = one.request
                if not is_plain(request):
                    one.alone()
                    continue
                access.range(one.caller, request)
                if request.serializable:
                    here.append(one)
                else:
                    replica.enter()
                    behind.append(one)
            except Exception as error:
                one.fail(error)
        if here:
            self._turns.do(self._read(here))
        if behind:
            replica.begin_barrier(
                len(behind),
                lambda _: self._turns.do(self._read(behind)),
                lambda error: self._turns.do(all_failed(behind, error)),
            )

    def _read(self, asked: Sequence[Asked[RangeRequest]]) -> Iterator[None]:
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            try:
                # A later view shows more: what was acknowledged before is in each of them.
                found = self._kv.gets([one.request.key for one in some], self._replica.header(revision=0))
            except Exception as error:
                yield from all_failed(some, error)
                continue
            for one, response in zip(some, found, strict=True):
                one.answer(response)
                yield
