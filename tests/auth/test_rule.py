"""Every decision is that of the rule in `connect_kv.testing.checker.rights`, whoever asks for whatever.

Tables change as they do in a cluster: by commands that are applied. CONNECT_KV_DECISIONS makes a long run
(docs/verification.md has the result of a million).
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from connect_kv.auth.authorization import Authorization
from connect_kv.auth.judgement import judge
from connect_kv.auth.table import AuthRefused, AuthTable
from connect_kv.auth.tokens import UserIdentity
from connect_kv.errors import Refused as Denied
from connect_kv.kv import layout
from connect_kv.kv.layout import Changes
from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc.command_pb2 import Command
from connect_kv.rpc.kv_pb2 import Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest
from connect_kv.rpc.lease_pb2 import LeaseRevokeRequest
from connect_kv.storage.memory import MemoryDisk
from connect_kv.storage.overlay import Overlay
from connect_kv.testing.checker.rights import OPEN, READ, READWRITE, ROOT, WRITE, RightsModel, Span

DECISIONS = int(os.environ.get("CONNECT_KV_DECISIONS", "20000"))
SEED = int(os.environ.get("CONNECT_KV_SEED", "1"))
KEYS = (b"a", b"a\x00", b"a\x00\x00", b"b", b"bb", b"c", b"d", b"\xff", b"\x00")
USERS = ("al", "bo", "cy", "di", "nobody")
ROLES = ("r1", "r2", "r3", "r4", ROOT)
LEASES = {7: (b"a",), 8: (b"b", b"c"), 9: ()}
"""By id, the keys attached."""
EACH = 20
"""Decisions between two changes."""


class World:
    """The real table, and the model beside it."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.rng = rng
        self.table = AuthTable()
        self.changes: Changes = Overlay(MemoryDisk(random.Random(1)).open(directory / "state"))
        self.model = RightsModel(KEYS)
        self.index = 0
        for lease, keys in LEASES.items():
            prefix = layout.lease_keys_prefix(lease)
            for key in keys:
                self.changes.put(prefix + key, b"")
        self.authorization = Authorization(self.table, lambda lease: LEASES.get(lease, ()))
        self.apply(auth.AuthChange(user_add=auth.AuthUserAddRequest(name=ROOT)))
        self.apply(auth.AuthChange(user_grant_role=auth.AuthUserGrantRoleRequest(user=ROOT, role=ROOT)))
        self.apply(auth.AuthChange(enable=auth.AuthEnableRequest()))
        self.model.users[ROOT] = {ROOT}

    def apply(self, change: auth.AuthChange) -> bool:
        self.index += 1
        try:
            self.table.apply(change, self.index, self.changes)
        except AuthRefused:
            return False
        return True

    def change(self) -> None:
        """Some change, in both; what the table refuses changes neither."""
        kind: Callable[[], None] = self.rng.choice(
            [self.add, self.delete, self.role, self.role, self.unrole, self.grant, self.grant, self.grant,
             self.revoke, self.give, self.give, self.give, self.take]
        )  # fmt: skip
        kind()

    def add(self) -> None:
        name = self.rng.choice(USERS)
        if self.apply(auth.AuthChange(user_add=auth.AuthUserAddRequest(name=name))):
            self.model.users[name] = set()

    def delete(self) -> None:
        name = self.rng.choice((*USERS, ROOT))
        if self.apply(auth.AuthChange(user_delete=auth.AuthUserDeleteRequest(name=name))):
            assert name != ROOT
            del self.model.users[name]

    def role(self) -> None:
        name = self.rng.choice(ROLES[:-1])
        if self.apply(auth.AuthChange(role_add=auth.AuthRoleAddRequest(name=name))):
            self.model.roles[name] = []

    def unrole(self) -> None:
        name = self.rng.choice(ROLES)
        if self.apply(auth.AuthChange(role_delete=auth.AuthRoleDeleteRequest(role=name))):
            assert name != ROOT
            del self.model.roles[name]
            for roles in self.model.users.values():
                roles.discard(name)

    def grant(self) -> None:
        name, key, end = self.rng.choice(ROLES[:-1]), *self.span()
        kind = self.rng.choice((READ, WRITE, READWRITE))
        perm = auth.Permission(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]
        change = auth.AuthRoleGrantPermissionRequest(name=name, perm=perm)
        if self.apply(auth.AuthChange(role_grant_permission=change)):
            # As etcd: the first one of a key is replaced if its end is that one; copies add up.
            spans = sorted(self.model.roles[name], key=lambda one: one.key)
            same = next((one for one in spans if one.key == key), None)
            if same is not None and same.end == end:
                spans.remove(same)
                spans.insert(0, Span(kind, key, end))
            else:
                spans.append(Span(kind, key, end))
            self.model.roles[name] = sorted(spans, key=lambda one: one.key)

    def revoke(self) -> None:
        name = self.rng.choice(ROLES[:-1])
        spans = self.model.roles.get(name) or [Span(READ, *self.span())]
        _, key, end = self.rng.choice(spans)
        change = auth.AuthRoleRevokePermissionRequest(role=name, key=key, range_end=end)
        if self.apply(auth.AuthChange(role_revoke_permission=change)):
            self.model.roles[name] = [one for one in spans if (one.key, one.end) != (key, end)]

    def give(self) -> None:
        user, role = self.rng.choice(USERS), self.rng.choice(ROLES if self.rng.random() < 0.1 else ROLES[:-1])
        change = auth.AuthUserGrantRoleRequest(user=user, role=role)
        if self.apply(auth.AuthChange(user_grant_role=change)):
            self.model.users[user].add(role)

    def take(self) -> None:
        user, role = self.rng.choice((*USERS, ROOT)), self.rng.choice(ROLES)
        change = auth.AuthUserRevokeRoleRequest(name=user, role=role)
        if self.apply(auth.AuthChange(user_revoke_role=change)):
            assert user != ROOT
            self.model.users[user].discard(role)

    # Requests.

    def span(self) -> tuple[bytes, bytes]:
        return self.rng.choice(KEYS), self.rng.choice((b"", b"", OPEN, *KEYS))

    def range(self) -> RangeRequest:
        key, end = self.span()
        return RangeRequest(key=key, range_end=end, limit=self.rng.choice((0, 1)), count_only=self.maybe(0.1))

    def put(self) -> PutRequest:
        lease = self.rng.choice((0, 0, 5, *LEASES))
        return PutRequest(key=self.rng.choice(KEYS), prev_kv=self.maybe(0.3), lease=lease)

    def delete_range(self) -> DeleteRangeRequest:
        key, end = self.span()
        return DeleteRangeRequest(key=key, range_end=end, prev_kv=self.maybe(0.3))

    def txn(self, depth: int = 0) -> TxnRequest:
        request = TxnRequest()
        for _ in range(self.rng.choice((0, 0, 1))):
            key, end = self.span()
            request.compare.append(Compare(key=key, range_end=end))
        for branch in (request.success, request.failure):
            branch.extend(self.operation(depth) for _ in range(self.rng.choice((0, 1, 1, 2))))
        return request

    def operation(self, depth: int) -> RequestOp:
        kind = self.rng.randrange(4 if depth < 2 else 3)
        if kind == 0:
            return RequestOp(request_range=self.range())
        if kind == 1:
            return RequestOp(request_put=self.put())
        if kind == 2:
            return RequestOp(request_delete_range=self.delete_range())
        return RequestOp(request_txn=self.txn(depth + 1))

    def maybe(self, probability: float) -> bool:
        return self.rng.random() < probability


def needs(request: object) -> Iterator[Span]:
    """What a request needs a right for (AUTH: ranges, transactions, leases)."""
    match request:
        case RangeRequest():
            yield Span(READ, request.key, request.range_end)
        case PutRequest():
            yield Span(WRITE, request.key, b"")
            if request.prev_kv:
                yield Span(READ, request.key, b"")
            yield from (Span(WRITE, key, b"") for key in LEASES.get(request.lease, ()))
        case DeleteRangeRequest():
            yield Span(WRITE, request.key, request.range_end)
            if request.prev_kv:
                yield Span(READ, request.key, request.range_end)
        case LeaseRevokeRequest():
            yield from (Span(WRITE, key, b"") for key in LEASES.get(request.ID, ()))
        case TxnRequest():
            yield from (Span(READ, one.key, one.range_end) for one in request.compare)
            for one in (*request.success, *request.failure):
                yield from needs(getattr(one, str(one.WhichOneof("request"))))


def allowed(judged: Callable[[], None]) -> bool:
    try:
        judged()
    except Denied:
        return False
    return True


def decide(world: World) -> bool:
    """One request of one user: by the service's question, by that of apply, and by the model."""
    user = world.rng.choice((*USERS, ROOT, "stranger"))
    identity, command = UserIdentity(user), Command()
    kind = world.rng.choice(("range", "put", "delete_range", "txn", "lease_revoke"))
    request: Any = (
        LeaseRevokeRequest(ID=world.rng.choice((5, *LEASES)))
        if kind == "lease_revoke"
        else getattr(world, kind)()
    )
    wanted = world.model.allowed(user, list(needs(request)))
    if kind == "txn" and not (request.compare or request.success or request.failure):
        wanted = True  # one with nothing in it is allowed to everybody, as in etcd
    match kind:
        case "lease_revoke":
            found = allowed(lambda: world.authorization.lease_write(identity, request.ID))
        case _:
            found = allowed(lambda: getattr(world.authorization, kind)(identity, request))
    assert found == wanted, (SEED, world.index, user, kind, request, world.model)
    if kind != "range":
        getattr(command, kind).CopyFrom(request)
        again = judge(world.table, command, kind, user, world.changes) is None
        assert again == wanted, ("apply", SEED, world.index, user, kind, request, world.model)
    return wanted


def test_decisions_are_those_of_the_rule(tmp_path: Path) -> None:
    world = World(tmp_path, random.Random(SEED))
    yes = 0
    for _ in range(12):
        world.change()
    for number in range(DECISIONS):
        if not number % EACH:
            world.change()
        yes += decide(world)
    assert DECISIONS / 5 < yes < DECISIONS * 4 / 5, "both answers must be common for this to say anything"
    assert {name: set(user.roles) for name, user in world.table.users.items()} == world.model.users
    again = AuthTable()
    again.load(world.changes)
    assert again.users == world.table.users, "what is stored is what was decided by"
    assert again.roles == world.table.roles
