"""What lies in the buckets of etcd's database, and under which keys."""

from __future__ import annotations

import struct

KEY, META, LEASE = b"key", b"meta", b"lease"
AUTH, USERS, ROLES = b"auth", b"authUsers", b"authRoles"
ALARM, CLUSTER, MEMBERS, MEMBERS_REMOVED = b"alarm", b"cluster", b"members", b"members_removed"
BUCKETS = (ALARM, AUTH, ROLES, USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META)
"""All that an etcd has, in order."""

CONSISTENT_INDEX = b"consistent_index"
SCHEDULED, FINISHED = b"scheduledCompactRev", b"finishedCompactRev"
AUTH_ENABLED, AUTH_REVISION = b"authEnabled", b"authRevision"

TOMBSTONE = b"t"
"""Stands behind the place of a deletion."""
_PLACE = struct.Struct(">QcQ")
_SUB = struct.Struct(">Q")
_SEPARATOR = b"_"
_LARGEST_MAIN = (1 << 63) - 1
_LARGEST_SUB = (1 << 32) - 1
"""More changes than this has no transaction."""

_NUMBER = struct.Struct(">Q")


def place(main: int, sub: int) -> bytes:
    """The key of a change in bucket `key`; of a deletion with TOMBSTONE behind it."""
    return _PLACE.pack(main, _SEPARATOR, sub)


def read_place(key: bytes) -> tuple[int, int, bool]:
    """(main, sub, whether it is a deletion). Raises ValueError."""
    size = len(key)
    deleted = size == _PLACE.size + 1 and key.endswith(TOMBSTONE)
    if size != _PLACE.size and not deleted:
        raise ValueError(f"{key!r} is no revision")
    main, separator, sub = _PLACE.unpack_from(key)
    if separator != _SEPARATOR or not 0 < main <= _LARGEST_MAIN or sub > _LARGEST_SUB:
        raise ValueError(f"{key!r} is no revision")
    return main, sub, deleted


def number(value: int) -> bytes:
    """Of eight bytes: an index of the log, the revision of users and roles, the id of a lease."""
    return _NUMBER.pack(value & (1 << 64) - 1)


def read_number(value: bytes) -> int:
    """The number that such a value holds. Raises ValueError."""
    if len(value) != _NUMBER.size:
        raise ValueError(f"{value!r} is no number of eight bytes")
    found: int = _NUMBER.unpack(value)[0]
    return found


def signed(value: int) -> int:
    """A number of eight bytes as the id of a lease."""
    return value - (1 << 64) if value >> 63 else value
