"""Authorization: the one place that says who may do what. Every service asks it beside its validation.

What each call needs is etcd's rule as its release 3.6 enforces it, on every call and to every depth of a
transaction; where earlier releases are laxer we are not. A request is judged by the rights as of now; the log
carries the generation they were read at, and apply judges again whatever has a change in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from connect_kv.auth.permissions import Rights
from connect_kv.auth.table import NO_USER_NAME, USER_NOT_FOUND, AuthTable
from connect_kv.auth.tokens import UserIdentity
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

PERMISSION_DENIED = Refusal(Code.PERMISSION_DENIED, "etcdserver: permission denied")
REVISION_OLD = Refusal(Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old")
FOREIGN_SESSION = Refusal(Code.PERMISSION_DENIED, "connect-kv: this session belongs to somebody else")

KeysOfLease = Callable[[int], Iterable[bytes]]
"""The keys attached to a lease; none for an unknown one."""


class Authorization:
    """Judges requests of one caller after the other. Methods raise Refused and return nothing.

    With authentication off everybody may do everything.
    """

    def __init__(self, table: AuthTable, keys_of_lease: KeysOfLease) -> None:
        self._table = table
        self._keys_of_lease = keys_of_lease

    @property
    def enabled(self) -> bool:
        """Whether anybody is judged at all."""
        return self._table.enabled

    # Who.

    def known(self, identity: UserIdentity | None) -> None:
        """Anybody who has proved to be somebody: enough for leases without keys, member lists, status."""
        if self._table.enabled:
            self._rights(identity)

    def root(self, identity: UserIdentity | None) -> None:
        """Who holds the role root: management, compaction, maintenance."""
        if self._table.enabled and not self._rights(identity, management=True).root:
            raise PERMISSION_DENIED.error()

    def user(self, identity: UserIdentity | None, name: str) -> None:
        """Root, or that user: who may be looked up."""
        if self._table.enabled and not (self._rights(identity, management=True).root or _is(identity, name)):
            raise PERMISSION_DENIED.error()

    def role(self, identity: UserIdentity | None, name: str) -> None:
        """Root, or who holds that role."""
        if not self._table.enabled:
            return
        rights = self._rights(identity, management=True)
        user = None if identity is None else self._table.users.get(identity.name)
        if not rights.root and (user is None or name not in user.roles):
            raise PERMISSION_DENIED.error()

    # Keys.

    def range(self, identity: UserIdentity | None, request: RangeRequest) -> None:
        """READ on the whole range, whatever limit, form or revision."""
        if self._table.enabled:
            _range(self._rights(identity), request)

    def put(self, identity: UserIdentity | None, request: PutRequest) -> None:
        """WRITE; READ for the previous value; WRITE on every key of the lease it is attached to."""
        if self._table.enabled:
            self._put(self._rights(identity), request)

    def delete_range(self, identity: UserIdentity | None, request: DeleteRangeRequest) -> None:
        """WRITE on the whole range; READ for the previous values."""
        if self._table.enabled:
            _delete_range(self._rights(identity), request)

    def txn(self, identity: UserIdentity | None, request: TxnRequest) -> None:
        """READ on every range compared, and each operation of both branches as if it stood alone.

        One with nothing in it is allowed to everybody, known or not, as in etcd.
        """
        if self._table.enabled and (request.compare or request.success or request.failure):
            self._txn(self._rights(identity), request)

    def watch(self, identity: UserIdentity | None, key: bytes, range_end: bytes) -> None:
        """READ on the whole range. The key counts as it was sent: an empty one is in no permission."""
        if self._table.enabled and not self._rights(identity).may_read(key, range_end):
            raise PERMISSION_DENIED.error()

    def lock(self, identity: UserIdentity | None, prefix: bytes, prefix_end: bytes, *, write: bool) -> None:
        """READ on the queue of a lock or an election; WRITE as well to stand in it."""
        if self._table.enabled:
            rights = self._rights(identity)
            if not rights.may_read(prefix, prefix_end) or (
                write and not rights.may_write(prefix, prefix_end)
            ):
                raise PERMISSION_DENIED.error()

    # Leases.

    def lease_write(self, identity: UserIdentity | None, lease: int) -> None:
        """WRITE on every key of the lease: to revoke it or keep it alive. One without keys is anybody's."""
        if self._table.enabled:
            self._attach(self._rights(identity), lease)

    def lease_read(self, identity: UserIdentity | None, leases: Iterable[int]) -> None:
        """READ on every key of these leases: to be shown them."""
        if self._table.enabled:
            rights = self._rights(identity)
            if not all(rights.may_read(key) for lease in leases for key in self._keys_of_lease(lease)):
                raise PERMISSION_DENIED.error()

    # Machines: our own rule. Without one only root calls them.

    def machine(self, identity: UserIdentity | None, machine: str, *, command: bool) -> None:
        """The role's right to query that machine, or to call its commands."""
        if self._table.enabled:
            rights = self._rights(identity)
            if not (rights.may_command(machine) if command else rights.may_query(machine)):
                raise PERMISSION_DENIED.error()

    def _rights(self, identity: UserIdentity | None, *, management: bool = False) -> Rights:
        """What the caller may do. Raises for nobody, and for a token that is older than the last change."""
        if identity is None:
            raise NO_USER_NAME.error()
        if identity.revision == 0:
            raise NO_USER_NAME.error()
        revision = self._table.revision if identity.revision is None else identity.revision
        if revision < self._table.revision:
            raise REVISION_OLD.error()
        if identity.name not in self._table.users:
            raise (USER_NOT_FOUND if management else PERMISSION_DENIED).error()
        if revision > self._table.revision:
            raise REVISION_OLD.error()
        return self._table.rights(identity.name)

    def _put(self, rights: Rights, request: PutRequest) -> None:
        if not rights.may_write(request.key) or (request.prev_kv and not rights.may_read(request.key)):
            raise PERMISSION_DENIED.error()
        if request.lease:
            self._attach(rights, request.lease)

    def _attach(self, rights: Rights, lease: int) -> None:
        # Otherwise whoever may write one key could have all others that hang on the lease deleted with it.
        if not rights.root and not all(rights.may_write(key) for key in self._keys_of_lease(lease)):
            raise PERMISSION_DENIED.error()

    def _txn(self, rights: Rights, request: TxnRequest) -> None:
        for compare in request.compare:
            if not rights.may_read(compare.key, compare.range_end):
                raise PERMISSION_DENIED.error()
        # Also on the branch that is not taken: which one is would tell what the caller may not read.
        for operation in (*request.success, *request.failure):
            self._operation(rights, operation)

    def _operation(self, rights: Rights, operation: RequestOp) -> None:
        match operation.WhichOneof("request"):
            case "request_range":
                _range(rights, operation.request_range)
            case "request_put":
                self._put(rights, operation.request_put)
            case "request_delete_range":
                _delete_range(rights, operation.request_delete_range)
            case "request_txn":
                self._txn(rights, operation.request_txn)


def _range(rights: Rights, request: RangeRequest) -> None:
    if not rights.may_read(request.key, request.range_end):
        raise PERMISSION_DENIED.error()


def _delete_range(rights: Rights, request: DeleteRangeRequest) -> None:
    key, end = request.key, request.range_end
    if not rights.may_write(key, end) or (request.prev_kv and not rights.may_read(key, end)):
        raise PERMISSION_DENIED.error()


def _is(identity: UserIdentity | None, name: str) -> bool:
    return identity is not None and identity.name == name
