r"""What the permissions of a user cover: unions of ranges of keys (etcd: "Role-based access control").

A permission on one key k is the range ``[k, k\0)``; a range_end of one zero byte has no end. A request is
allowed if the union of the permissions of the needed kind, over all roles of the user, covers all of it: what
exists in the range makes no difference.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from connect_kv.rpc.auth_pb2 import MachinePermission, Permission

FROM_KEY = b"\x00"
"""As range_end: every key from `key` on."""

_READS = frozenset((int(Permission.READ), int(Permission.READWRITE)))
_WRITES = frozenset((int(Permission.WRITE), int(Permission.READWRITE)))


def usable(permission: Permission) -> bool:
    """Whether it can cover anything: it has a key, and a range_end that is empty, behind it, or open."""
    key, end = permission.key, permission.range_end
    return bool(key) and (not end or end == FROM_KEY or end > key)


class RangeUnion:
    """Ranges of keys as one set. Looking up costs the logarithm of their number."""

    def __init__(self, ranges: Iterable[tuple[bytes, bytes]]) -> None:
        """`ranges`: (key, range_end) as in a permission."""
        self._starts: list[bytes] = []
        self._stops: list[bytes | None] = []
        for start, stop in sorted((_interval(*one) for one in ranges), key=lambda one: one[0]):
            last = self._stops[-1] if self._stops else b""
            if last is None:
                break  # everything behind an open end is in it
            if self._starts and start <= last:
                # Touching is enough: [a,b) and [b,c) leave no key between them.
                self._stops[-1] = None if stop is None else max(last, stop)
            else:
                self._starts.append(start)
                self._stops.append(stop)

    def covers(self, key: bytes, range_end: bytes) -> bool:
        """Whether all of a request's range is in one of them.

        A range_end at or below the key makes the range empty: it is judged by its key alone, as in etcd.
        """
        at = bisect_right(self._starts, key) - 1
        if at < 0:
            return False
        stop = self._stops[at]
        if range_end == FROM_KEY:
            return stop is None
        needed = range_end if range_end > key else key + b"\x00"
        return stop is None or needed <= stop


def _interval(key: bytes, range_end: bytes) -> tuple[bytes, bytes | None]:
    if range_end == FROM_KEY:
        return key, None
    return key, range_end or key + b"\x00"


@dataclass(frozen=True, slots=True)
class Rights:
    """Everything a user may do, put together from all roles."""

    root: bool
    """Holds the role root: may do everything."""
    reads: RangeUnion
    writes: RangeUnion
    queries: frozenset[str]
    """Machines that may be queried; the empty name stands for all."""
    commands: frozenset[str]

    def may_read(self, key: bytes, range_end: bytes = b"") -> bool:
        """Whether the whole range may be read. WRITE does not allow it."""
        return self.root or self.reads.covers(key, range_end)

    def may_write(self, key: bytes, range_end: bytes = b"") -> bool:
        """Whether the whole range may be written."""
        return self.root or self.writes.covers(key, range_end)

    def may_query(self, machine: str) -> bool:
        """Whether queries of that machine may be called."""
        return self.root or not self.queries.isdisjoint((machine, ""))

    def may_command(self, machine: str) -> bool:
        """Whether commands of that machine may be called."""
        return self.root or not self.commands.isdisjoint((machine, ""))


def rights_of(
    permissions: Iterable[Permission], machines: Iterable[MachinePermission], *, root: bool
) -> Rights:
    """The union of them. A permission of an unknown type, or of no range, allows nothing."""
    good = [one for one in permissions if usable(one)]
    asked = list(machines)
    commands = frozenset(one.machine for one in asked if one.permType == MachinePermission.COMMAND)
    return Rights(
        root=root,
        reads=RangeUnion((one.key, one.range_end) for one in good if int(one.permType) in _READS),
        writes=RangeUnion((one.key, one.range_end) for one in good if int(one.permType) in _WRITES),
        queries=commands | frozenset(one.machine for one in asked if one.permType == MachinePermission.QUERY),
        commands=commands,
    )
