"""Rights beside the reference: every command of the log is judged by the rule of `testing.checker.rights`.

By the users and roles as they are at its place in the log, whatever a member judged it by when it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from copy import deepcopy

from connect_kv.kv.proposer import BY_SERVER
from connect_kv.rpc.auth_pb2 import AuthChange
from connect_kv.rpc.command_pb2 import Command, Result
from connect_kv.rpc.kv_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest
from connect_kv.services.audit import RIGHTS
from connect_kv.testing.checker.rights import READ, ROOT, WRITE, RightsModel, Span

KEYS = (b"p0", b"p1", b"p2", b"p3")
"""Of the ranges that users of the simulation may have, and ask for."""
_NEVER_JUDGED = frozenset(
    ("session_open", "session_close", "lease_renew", "lease_expire", "member_publish", "none")
)
"""What members propose by themselves, or what needs no right at its place in the log."""

KeysOfLease = Callable[[int], Set[bytes]]


class Judged:
    """Who there is at this place in the log, and whether commands were rightly refused, or not."""

    def __init__(self, violated: Callable[[str], None], keys_of_lease: KeysOfLease) -> None:
        self._violated = violated
        self._keys_of_lease = keys_of_lease
        self.enabled = False
        self.rights = RightsModel((*KEYS, b"p4"))
        self.versions: list[tuple[bool, RightsModel]] = [(False, deepcopy(self.rights))]
        """Each state of it so far, the latest at the end."""
        self.refused = self.allowed = 0
        """Commands of users but root, while authentication was on."""

    def refuses(self, where: str, command: Command, owner: tuple[str, int], result: Result) -> bool:
        """Whether it was refused for want of a right; a violation if that was wrong, or was not done.

        `owner`: user and generation, as they stand beside the command in the log.
        """
        failed = result.failure.message in RIGHTS if result.HasField("failure") else False
        user, judged = owner
        kind = command.WhichOneof("request") or "none"
        login = kind == "auth" and command.auth.HasField("login")
        if not self.enabled or judged == BY_SERVER or kind in _NEVER_JUDGED or login:
            if failed and kind != "auth":  # there "user not found" is about somebody else
                self._violated(
                    f"{where}: {kind} was refused though nobody is asked: {result.failure.message}"
                )
            return failed
        allowed = self._allowed(user, kind, command)
        if user != ROOT:
            self.allowed += allowed
            self.refused += not allowed
        if allowed and failed and kind != "auth":
            self._violated(
                f"{where}: {kind} of {user!r} was refused: {result.failure.message}; {self.rights}"
            )
        if not allowed and not failed:
            self._violated(
                f"{where}: {kind} of {user!r} was carried out without a right to it; {self.rights}"
            )
        return failed

    def may_read(self, user: str, request: RangeRequest, first: int) -> bool:
        """Whether some state from the `first` of `versions` on allows that."""
        need = [Span(READ, request.key, request.range_end)]
        return any(not enabled or rights.allowed(user, need) for enabled, rights in self.versions[first:])

    def _allowed(self, user: str, kind: str, command: Command) -> bool:
        rights = self.rights
        root = user in rights.users and ROOT in rights.users[user]
        match kind:
            case "put" | "delete_range" | "txn":
                request = getattr(command, kind)
                if kind == "txn" and not (request.compare or request.success or request.failure):
                    return True
                return root or rights.allowed(user, list(self._needs(request)))
            case "lease_grant":
                return user in rights.users
            case "lease_revoke":
                return root or rights.allowed(user, list(self._attached(command.lease_revoke.ID)))
            case _:  # machines, compaction, alarms, users
                return root

    def _needs(self, request: object) -> Iterator[Span]:
        match request:
            case RangeRequest():
                yield Span(READ, request.key, request.range_end)
            case PutRequest():
                yield Span(WRITE, request.key, b"")
                if request.prev_kv:
                    yield Span(READ, request.key, b"")
                if request.lease:
                    yield from self._attached(request.lease)
            case DeleteRangeRequest():
                yield Span(WRITE, request.key, request.range_end)
                if request.prev_kv:
                    yield Span(READ, request.key, request.range_end)
            case TxnRequest():
                yield from (Span(READ, one.key, one.range_end) for one in request.compare)
                for operation in (*request.success, *request.failure):
                    yield from self._needs(_inner(operation))

    def _attached(self, lease: int) -> Iterator[Span]:
        return (Span(WRITE, key, b"") for key in self._keys_of_lease(lease))

    # Changes.

    def change(self, where: str, change: AuthChange, result: Result) -> None:
        """Users or roles change, or do not: as the model says."""
        if change.HasField("login"):
            return
        kind = change.WhichOneof("change") or "none"
        done = self._change(kind, change)
        if done == result.HasField("failure"):
            self._violated(f"{where}: {kind} {'failed' if done else 'did not fail'}: {result}; {self.rights}")
        if done:
            self.versions.append((self.enabled, deepcopy(self.rights)))

    def _change(self, kind: str, change: AuthChange) -> bool:
        users, roles, on = self.rights.users, self.rights.roles, self.enabled
        match kind:
            case "enable":
                if not on and ROOT not in users.get(ROOT, ()):
                    return False
                self.enabled = True
            case "disable":
                self.enabled = False
            case "user_add":
                if change.user_add.name in users:
                    return False
                users[change.user_add.name] = set()
            case "user_delete":
                name = change.user_delete.name
                if name not in users or (on and name == ROOT):
                    return False
                del users[name]
            case "user_grant_role":
                user, role = change.user_grant_role.user, change.user_grant_role.role
                if user not in users or role not in (ROOT, *roles):
                    return False
                users[user].add(role)
            case "user_revoke_role":
                user, role = change.user_revoke_role.name, change.user_revoke_role.role
                if role not in users.get(user, ()) or (on and user == role == ROOT):
                    return False
                users[user].remove(role)
            case "role_add":
                if change.role_add.name in roles:
                    return False
                roles[change.role_add.name] = []
            case "role_delete":
                if change.role_delete.role not in roles:
                    return False
                del roles[change.role_delete.role]
                for held in users.values():
                    held.discard(change.role_delete.role)
            case "role_grant_permission":
                return _granted(roles, change)
            case "role_revoke_permission":
                return _revoked(roles, change)
            case _:
                raise ValueError(f"the simulator's workloads have no {kind}")
        return True


def _granted(roles: Mapping[str, list[Span]], change: AuthChange) -> bool:
    request = change.role_grant_permission
    if request.name not in roles:
        return False
    spans, perm = roles[request.name], request.perm
    # As etcd: the first one of a key is replaced if its end is that one; others add up.
    same = next((at for at, one in enumerate(spans) if one.key == perm.key), None)
    new = Span(int(perm.permType), perm.key, perm.range_end)
    if same is not None and spans[same].end == new.end:
        spans[same] = new
    else:
        spans.append(new)
        spans.sort(key=lambda one: one.key)
    return True


def _revoked(roles: Mapping[str, list[Span]], change: AuthChange) -> bool:
    request = change.role_revoke_permission
    spans = roles.get(request.role, [])
    kept = [one for one in spans if (one.key, one.end) != (request.key, request.range_end)]
    if len(kept) == len(spans):
        return False
    spans[:] = kept
    return True


def _inner(operation: RequestOp) -> object:
    return getattr(operation, operation.WhichOneof("request") or "request_txn")
