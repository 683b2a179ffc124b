"""Access: what a service asks before it does anything for a caller, one line each.

It knows who the caller is (`auth.authenticator`) and asks whether they may (`auth.authorization`). What comes
back of a write goes into the log beside the command, so that apply can tell whether it has to ask again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec

from connect_kv.auth.authenticator import Authenticator
from connect_kv.auth.authorization import FOREIGN_SESSION, REVISION_OLD, Authorization
from connect_kv.auth.judgement import lease_keys
from connect_kv.auth.table import NO_USER_NAME, AuthTable
from connect_kv.auth.tokens import INVALID_TOKEN, UserIdentity
from connect_kv.errors import Refused
from connect_kv.etcd_errors import Code
from connect_kv.kv.layout import Source
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest
from connect_kv.services.audit import Audit
from connect_kv.services.caller import Caller

P = ParamSpec("P")

_UNIDENTIFIED = frozenset({INVALID_TOKEN.message, NO_USER_NAME.message, REVISION_OLD.message})


class Access:
    """The doorkeeper's questions. Methods raise Refused with etcd's code and text."""

    def __init__(
        self, table: AuthTable, authenticator: Authenticator, source: Callable[[], Source | None]
    ) -> None:
        """`source`: the database as it is now, for the keys of leases."""
        self._table = table
        self._authenticator = authenticator
        self._source = source
        self._authorization = Authorization(table, self._keys_of_lease)
        self._marks: dict[tuple[str, int], bytes] = {}
        self.audit: Audit | None = None
        """Where calls are written down; who refuses without an error that the router sees, tells it."""

    @property
    def enabled(self) -> bool:
        """Whether anybody is asked who they are."""
        return self._table.enabled

    def ready(self, caller: Caller) -> Awaitable[None] | None:
        """What to wait for, briefly: a login that this member has not applied yet. None nearly always."""
        if self._table.enabled and self._authenticator.late(caller.credentials):
            return self._authenticator.catch_up(caller.credentials)
        return None

    async def behind(self, wait: Callable[[], Awaitable[object]], judge: Callable[[], object]) -> None:
        """Judge, `wait` for a read barrier, and judge again if users or roles have changed meanwhile.

        This member may be behind others that have told of a change already: what it would read then is as
        new as the barrier, and so must be whom it lets read it. (What is written is judged where it is
        applied.)
        """
        judge()
        judged = self._table.generation
        await wait()
        if self._table.generation != judged:
            judge()

    # Writes give back what is to stand beside the command in the log.

    def put(self, caller: Caller, request: PutRequest) -> bytes:
        """See `Authorization.put`."""
        return self._write(caller, self._authorization.put, request)

    def delete_range(self, caller: Caller, request: DeleteRangeRequest) -> bytes:
        """See `Authorization.delete_range`."""
        return self._write(caller, self._authorization.delete_range, request)

    def txn(self, caller: Caller, request: TxnRequest) -> bytes:
        """See `Authorization.txn`."""
        return self._write(caller, self._authorization.txn, request)

    def root(self, caller: Caller) -> bytes:
        """Management, compaction, maintenance: who holds the role root."""
        return self._write(caller, self._authorization.root)

    def known(self, caller: Caller) -> bytes:
        """Anybody who has proved to be somebody."""
        return self._write(caller, self._authorization.known)

    def lease_write(self, caller: Caller, lease: int) -> bytes:
        """See `Authorization.lease_write`."""
        return self._write(caller, self._authorization.lease_write, lease)

    def command(self, caller: Caller, machine: str) -> bytes:
        """Commands of a machine."""
        return self._write(caller, self._authorization.machine, machine, command=True)

    def lock(self, caller: Caller, prefix: bytes, prefix_end: bytes) -> bytes:
        """To stand in the queue of a lock or an election: any operation within it may follow."""
        return self._write(caller, self._authorization.lock, prefix, prefix_end, write=True)

    def _write(
        self,
        caller: Caller,
        judge: Callable[Concatenate[UserIdentity | None, P], object],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bytes:
        if not self._table.enabled:
            return b""
        identity = self._identify(caller)
        judge(identity, *args, **kwargs)
        return self._mark(identity)

    # Reads.

    def range(self, caller: Caller, request: RangeRequest) -> None:
        """See `Authorization.range`."""
        if self._table.enabled:
            self._authorization.range(self._identify(caller), request)

    def watch(self, caller: Caller, key: bytes, range_end: bytes) -> None:
        """See `Authorization.watch`."""
        if self._table.enabled:
            self._authorization.watch(self._identify(caller), key, range_end)

    def watch_of(self, owner: str, key: bytes, range_end: bytes) -> None:
        """Whether a watch of `owner`, as known when it was created, may go on. Raises Refused."""
        self._authorization.watch(UserIdentity(owner) if owner else None, key, range_end)

    def queue(self, caller: Caller, prefix: bytes, prefix_end: bytes) -> None:
        """To see who stands first in the queue of a lock or an election."""
        if self._table.enabled:
            self._authorization.lock(self._identify(caller), prefix, prefix_end, write=False)

    def leases(self, caller: Caller, leases: Iterable[int]) -> None:
        """See `Authorization.lease_read`."""
        if self._table.enabled:
            self._authorization.lease_read(self._identify(caller), leases)

    def query(self, caller: Caller, machine: str) -> None:
        """Queries of a machine."""
        if self._table.enabled:
            self._authorization.machine(self._identify(caller), machine, command=False)

    def user(self, caller: Caller, name: str) -> None:
        """Who may look that user up."""
        if self._table.enabled:
            self._authorization.user(self._identify(caller), name)

    def role(self, caller: Caller, name: str) -> None:
        """Who may look that role up."""
        if self._table.enabled:
            self._authorization.role(self._identify(caller), name)

    # Names.

    @property
    def generation(self) -> int:
        """Of users and roles, as they were judged by last."""
        return self._table.generation

    def who(self, caller: Caller) -> str:
        """The name a caller has shown, not judged; empty: none, or nothing good to show."""
        try:
            identity = self._identify(caller)
        except Refused:
            return ""
        return identity.name if identity else ""

    def identified(self, caller: Caller) -> None:
        """Raises Refused where nobody knows any more who calls: another login may change that.

        A stream ends with it rather than have a command refused in the log, under its number, for ever.
        """
        try:
            self.name(caller)
        except Refused as refused:
            if refused.message in _UNIDENTIFIED:
                raise

    def name(self, caller: Caller) -> str:
        """Of the user; empty while authentication is off."""
        if not self._table.enabled:
            return ""
        identity = self._identify(caller)
        self._authorization.known(identity)
        return identity.name if identity else ""

    # Sessions.

    def owns(self, caller: Caller, owner: str) -> None:
        """A session belongs to who opened it; one opened while nobody was asked, to whoever knows its id."""
        if self._table.enabled and owner and self.name(caller) != owner:
            raise FOREIGN_SESSION.error()

    def judged(self, caller: Caller) -> tuple[str, int]:
        """User and generation, for a batch of commands that were judged one by one."""
        return (self.name(caller), self._table.generation) if self._table.enabled else ("", 0)

    def _identify(self, caller: Caller) -> UserIdentity | None:
        return self._authenticator.identify(caller.credentials)

    def _mark(self, identity: UserIdentity | None) -> bytes:
        """``Command(user=..., judged=...)`` encoded; the same ones come again and again."""
        wanted = (identity.name if identity else "", self._table.generation)
        mark = self._marks.get(wanted)
        if mark is None:
            if len(self._marks) >= 1024:
                self._marks.clear()
            mark = self._marks[wanted] = Command(user=wanted[0], judged=wanted[1]).SerializeToString()
        return mark

    def _keys_of_lease(self, lease: int) -> Iterable[bytes]:
        source = self._source()
        return () if source is None else lease_keys(source, lease)


@contextmanager
def as_unknown() -> Iterator[None]:
    """Refusals of locks and elections arrive as UNKNOWN with the usual text, as etcd's do."""
    try:
        yield
    except Refused as refused:
        raise Refused(Code.UNKNOWN, refused.message) from None
