"""Judging a command of the log again, where users or roles have changed since a member took it in."""

from __future__ import annotations

from collections.abc import Iterable

from connect_kv.auth.authorization import Authorization
from connect_kv.auth.table import AuthTable
from connect_kv.auth.tokens import UserIdentity
from connect_kv.errors import Refused
from connect_kv.kv import layout
from connect_kv.kv.layout import Changes
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import TxnRequest


def judge(
    table: AuthTable, command: Command, kind: str | None, user: str, changes: Changes
) -> Refused | None:
    """Why `user` may not do that as of now; alike on all members: it depends on replicated state alone.

    Kinds that are not named are the server's own, or harmless: renewals and expiries of leases, sessions.
    """

    def keys_of_lease(lease: int) -> Iterable[bytes]:
        return lease_keys(changes, lease)

    identity = UserIdentity(user) if user else None
    authorization = Authorization(table, keys_of_lease)
    try:
        match kind:
            case "put":
                authorization.put(identity, command.put)
            case "delete_range":
                authorization.delete_range(identity, command.delete_range)
            case "txn":
                authorization.txn(identity, command.txn)
            case "lease_grant":
                authorization.known(identity)
            case "lease_revoke":
                authorization.lease_write(identity, command.lease_revoke.ID)
            case "machine_call":
                authorization.machine(identity, command.machine_call.machine, command=True)
            case "compact" | "machine_change" | "alarm":
                authorization.root(identity)
            case "auth" if not command.auth.HasField("login"):
                authorization.root(identity)
    except Refused as refused:
        return refused
    return None


def on_leases(command: Command, kind: str | None) -> bool:
    """Whether the rights it needs depend on which keys hang on a lease: others' commands change that, and no
    generation tells.
    """
    match kind:
        case "put":
            return bool(command.put.lease)
        case "lease_revoke":
            return True
        case "txn":
            return _puts_on_leases(command.txn)
        case _:
            return False


def _puts_on_leases(request: TxnRequest) -> bool:
    return any(
        operation.request_put.lease or _puts_on_leases(operation.request_txn)
        for branch in (request.success, request.failure)
        for operation in branch
    )


def lease_keys(reader: layout.Source | Changes, lease: int) -> Iterable[bytes]:
    """The keys attached to a lease, in order."""
    prefix, stop = layout.lease_keys_prefix(lease), layout.lease_keys_stop(lease)
    return (key[len(prefix) :] for key, _ in reader.iterate(prefix, stop))
