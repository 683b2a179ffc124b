"""Users and roles as etcd's database has them, and as ours has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from connect_kv.auth.table import role_record, standing_record, user_record
from connect_kv.etcd_files import records
from connect_kv.rpc.auth_pb2 import StoredAuth, StoredRole, StoredUser, UserAddOptions
from connect_kv.rpc.etcd_files_pb2 import EtcdRole, EtcdUser

Pair = tuple[bytes, bytes]


def user_from_etcd(record: bytes) -> StoredUser:
    """Raises DecodeError."""
    found = EtcdUser.FromString(record)
    return StoredUser(
        name=found.name,
        password_hash=found.password,
        no_password=found.options.no_password,
        roles=sorted(found.roles),
    )


def role_from_etcd(record: bytes) -> StoredRole:
    """Raises DecodeError."""
    found = EtcdRole.FromString(record)
    return StoredRole(name=found.name, permissions=found.keyPermission)


def standing_from_etcd(pairs: Iterable[Pair]) -> StoredAuth:
    """From the bucket `auth`. Raises ValueError."""
    found = dict(pairs)
    revision = found.get(records.AUTH_REVISION)
    return StoredAuth(
        enabled=found.get(records.AUTH_ENABLED, b"\0") == b"\1",
        revision=max(1, records.read_number(revision)) if revision is not None else 1,
        generation=1,
    )


def from_etcd(users: Iterable[Pair], roles: Iterable[Pair], auth: Iterable[Pair]) -> Iterator[Pair]:
    """Our records of what lies in these three buckets. Raises ValueError, DecodeError."""
    standing = standing_from_etcd(auth)
    yield standing_record(standing)
    for _, record in users:
        yield user_record(user_from_etcd(record))
    for _, record in roles:
        yield role_record(role_from_etcd(record))


def user_to_etcd(user: StoredUser) -> Pair:
    """Its key and value in `authUsers`."""
    record = EtcdUser(
        name=user.name,
        password=user.password_hash,
        roles=user.roles,
        options=UserAddOptions(no_password=user.no_password),
    )
    return user.name.encode(), record.SerializeToString()


def role_to_etcd(role: StoredRole) -> Pair:
    """Its key and value in `authRoles`. What a role may ask of machines, etcd has no place for."""
    record = EtcdRole(name=role.name, keyPermission=role.permissions)
    return role.name.encode(), record.SerializeToString()


def standing_to_etcd(stored: StoredAuth) -> list[Pair]:
    """The bucket `auth`."""
    return [
        (records.AUTH_ENABLED, b"\1" if stored.enabled else b"\0"),
        (records.AUTH_REVISION, records.number(stored.revision)),
    ]
