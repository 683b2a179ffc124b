"""Gets that come together share one read barrier, and one view of the database a turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from connect_kv.kv.gets import is_plain
from connect_kv.kv.machine import KvMachine
from connect_kv.kv.wire import key_of_plain_get
from connect_kv.rpc.kv_pb2 import RangeRequest
from connect_kv.services.access import Access
from connect_kv.services.asked import Asked, all_failed
from connect_kv.services.executor import CommandExecutor
from connect_kv.services.turns import Turns

_AT_ONCE = 128
"""Keys read of one view, and answered, between two looks at the clock,"""
_MOST_BYTES = 256 << 10
"""or answers of so many bytes and one more: values may be a megabyte each."""
_Get = tuple[Asked[RangeRequest], bytes]
"""A request, and the key it asks for."""


class Gets:
    """The batch form of Range. What is more than one key as it is now is asked alone: it may be large."""

    def __init__(self, executor: CommandExecutor, kv: KvMachine, access: Access, turns: Turns) -> None:
        """In `turns` is read and answered."""
        self._executor = executor
        self._kv = kv
        self._access = access
        self._turns = turns

    def many(self, calls: Iterable[Asked[RangeRequest]]) -> None:
        """See `services.asked.Many`."""
        access = self._access
        here: list[_Get] = []
        behind: list[_Get] = []
        judged = access.enabled
        for one in calls:
            try:
                key = None if judged else key_of_plain_get(one.encoded)
                if key is not None:
                    behind.append((one, key))
                    continue
                request = one.request
                if not is_plain(request):
                    one.alone()
                    continue
                access.range(one.caller, request)
                (here if request.serializable else behind).append((one, request.key))
            except Exception as error:
                one.fail(error)
        if here:
            self._turns.do(self._read(here))
        self._begin(behind)

    def _begin(self, gets: list[_Get]) -> None:
        """Read as many as may wait behind a barrier."""
        count = self._executor.enter(len(gets))
        for one, _ in gets[count:]:
            one.fail(self._executor.overloaded())
        del gets[count:]
        if gets:
            judged = self._access.generation
            self._executor.begin_barrier(
                count,
                lambda _: self._turns.do(self._read(self._still_good(gets, judged))),
                lambda error: self._turns.do(all_failed((one for one, _ in gets), error)),
            )

    def _still_good(self, gets: list[_Get], judged: int) -> list[_Get]:
        """Those of who may read it by the users and roles behind the barrier (`Access.behind`)."""
        if self._access.generation == judged:
            return gets
        good = []
        for one, key in gets:
            try:
                self._access.range(one.caller, one.request)
            except Exception as error:
                one.fail(error)
            else:
                good.append((one, key))
        return good

    def _read(self, gets: Sequence[_Get]) -> Iterator[bool | None]:
        start = 0
        while start < len(gets):
            some = gets[start : start + _AT_ONCE]
            try:
                # A later view shows more: what was acknowledged before is in each of them.
                found = self._kv.gets(
                    [key for _, key in some], self._executor.header(revision=0), most=_MOST_BYTES
                )
            except Exception as error:
                yield from all_failed((one for one, _ in some), error)
                start += len(some)
                continue
            start += len(found)
            for (one, _), response in zip(some, found, strict=False):  # there may be fewer
                one.answer(response)
            # Only once nothing is read that was not answered: thousands of batches may stand here at a time,
            # each of another client that reads nothing, and what they held would be bounded by nobody.
            del found, response
            yield True
