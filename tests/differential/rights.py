"""Users, roles and rights: the same random requests of random users to two servers, authentication on.

Left out is what the reference (3.5.1) is known to be laxer with than its own rule: transactions within
others, what a put within one needs beside its key, keep-alives, what nobody asks of leases, or who may not
read their keys, watches without an end, permissions of no range, passwords of more than 72 bytes, and a
permission that is narrowed by granting its range again: where another range of the same key comes first,
the reference, and we with it, keeps the old one too (docs/security.md). There are few wrong logins: ours
slows them down.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from connect_kv.rpc import auth_pb2 as auth
from connect_kv.rpc import kv_pb2 as kv
from connect_kv.rpc import lease_pb2 as lease
from connect_kv.rpc import watch_pb2 as watch
from tests.differential.compare import difference
from tests.differential.session import Difference
from tests.differential.target import Failed, Target

KEYS = [b"a", b"a\x00", b"a/1", b"ab", b"b", b"c", b"\xff", b"\x01"]
ENDS = [b"a", b"a0", b"b", b"c", b"d", b"\xff\xff", b"\x00"]
USERS = ["al", "bo", "cy", "di"]
ROLES = ["r1", "r2", "r3"]
LEASES = [1, 2, 3]
LONG = 100_000
ROOT = "root"
NOBODY, WRONG = "without a token", "with a wrong token"
BAD_TOKEN = "etcdserver: invalid auth token"

Answers = tuple[Message | Failed, Message | Failed]


class RightsPair:
    """Two servers with the same users. Of the reference, one member; ours may have several."""

    def __init__(self, theirs: Target, ours: Target, seed: int) -> None:
        self.both = (theirs, ours)
        self.rng = random.Random(seed)
        self.seed = seed
        self.requests = 0
        self.refused = 0
        """Those that both refused for want of a right."""
        self.wrong_way_round = 0
        """Those with a range whose end is before its key that only the reference refused."""
        self._tokens: dict[str, tuple[str, str]] = {}
        self._users = set[str]()
        """Besides root."""
        self._several = len(ours.nodes) > 1
        """Members of ours: those that were not asked before may be behind for a moment."""
        self._granted: dict[str, dict[tuple[bytes, bytes], int]] = {}
        """What each role may do with each range."""

    def run(self, requests: int) -> None:
        """Send that many; raises Difference at the first answer that is another."""
        self._begin()
        steps: list[tuple[Callable[[], None], float]] = [
            (self._use, 76), (self._change, 21), (self._watch, 3),
        ]  # fmt: skip
        for step in self.rng.choices([one for one, _ in steps], [weight for _, weight in steps], k=requests):
            step()
            self.requests += 1
        self._end()

    def _begin(self) -> None:
        """Root, authentication on, and nobody else; whatever an earlier seed left."""
        for target in self.both:
            if isinstance(target.call(auth.AuthStatusRequest()), Failed):
                login = target.call(auth.AuthenticateRequest(name=ROOT, password="pw"))
                assert isinstance(login, auth.AuthenticateResponse), login
                target.begin(auth.AuthDisableRequest(), token=login.token)()
            target.call(auth.AuthUserAddRequest(name=ROOT, password="pw"))
            target.call(auth.AuthUserGrantRoleRequest(user=ROOT, role=ROOT))
            for name in USERS:
                target.call(auth.AuthUserDeleteRequest(name=name))
            for name in ROLES:
                target.call(auth.AuthRoleDeleteRequest(role=name))
            target.call(kv.DeleteRangeRequest(key=b"\x00", range_end=b"\x00"))
            for number in LEASES:
                target.call(lease.LeaseRevokeRequest(ID=number))
                target.call(lease.LeaseGrantRequest(ID=number, TTL=LONG))
            enabled = target.call(auth.AuthEnableRequest())
            assert not isinstance(enabled, Failed), enabled
        assert self._login(ROOT)
        for name in USERS[:3]:
            self._ask(ROOT, auth.AuthUserAddRequest(name=name, password="pw"))
            self._users.add(name)
        for name in ROLES[:2]:
            self._ask(ROOT, auth.AuthRoleAddRequest(name=name))

    def _end(self) -> None:
        self._wrong_login()
        self._ask(ROOT, auth.AuthStatusRequest())
        self._ask(ROOT, kv.RangeRequest(key=b"\x00", range_end=b"\x00"))
        self._ask(ROOT, auth.AuthDisableRequest())

    # Steps.

    def _use(self) -> None:
        """What users do to keys and leases."""
        make: Callable[[], Message] = self.rng.choice(
            [self._range, self._range, self._put, self._put, self._delete, self._txn, self._txn, self._lease]
        )
        who = self._somebody()
        if make == self._lease and who not in (*self._users, ROOT):
            who = ROOT
        self._ask(who, make())

    def _change(self) -> None:
        """What root does to users and roles; now and then somebody else tries."""
        who = ROOT if self.rng.random() < 0.9 else self._somebody()
        user, role, (key, end) = self.rng.choice(USERS), self.rng.choice(ROLES), self._span(sound=True)
        kind = self.rng.choice(auth.Permission.Type.values())
        perm = auth.Permission(permType=kind, key=key, range_end=end)
        changes: list[tuple[Message, float]] = [
            (auth.AuthUserAddRequest(name=user, password="pw"), 2),
            (auth.AuthUserDeleteRequest(name=self.rng.choice([user, ROOT])), 1),
            (auth.AuthUserChangePasswordRequest(name=user, password="pw"), 1),
            (auth.AuthUserGrantRoleRequest(user=user, role=self.rng.choice([role, role, role, ROOT])), 5),
            (auth.AuthUserRevokeRoleRequest(name=self.rng.choice([user, user, ROOT]), role=role), 2),
            (auth.AuthUserRevokeRoleRequest(name=user, role=ROOT), 2),
            (auth.AuthUserGetRequest(name=user), 1),
            (auth.AuthUserListRequest(), 0.5),
            (auth.AuthRoleAddRequest(name=role), 2),
            (auth.AuthRoleDeleteRequest(role=role), 0.7),
            (auth.AuthRoleGetRequest(role=role), 1),
            (auth.AuthRoleListRequest(), 0.5),
            (auth.AuthRoleGrantPermissionRequest(name=role, perm=perm), 7),
            (auth.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end), 3),
            (auth.AuthStatusRequest(), 1),
            (auth.AuthEnableRequest(), 0.3),
        ]
        request = self.rng.choices([one for one, _ in changes], [weight for _, weight in changes])[0]
        if isinstance(request, auth.AuthRoleGrantPermissionRequest):
            before = self._granted.get(role, {}).get((key, end))
            if before is not None and before != kind:
                request = auth.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)
        _, ours = self._ask(who, request)
        if not isinstance(ours, Failed):
            self._learn(request)
        self._level()

    def _learn(self, request: Message) -> None:
        match request:
            case auth.AuthUserAddRequest():
                self._users.add(request.name)
            case auth.AuthUserDeleteRequest():
                self._users.discard(request.name)
            case auth.AuthRoleGrantPermissionRequest():
                held = self._granted.setdefault(request.name, {})
                held[request.perm.key, request.perm.range_end] = request.perm.permType
            case auth.AuthRoleRevokePermissionRequest():
                self._granted.get(request.role, {}).pop((request.key, request.range_end), None)
            case auth.AuthRoleDeleteRequest():
                self._granted.pop(request.role, None)

    def _wrong_login(self) -> None:
        """One of a kind."""
        unknown, known = f"unknown-{self.seed}", ROOT
        name, password = [(unknown, "pw"), (known, "no"), ("", "pw"), (known, "")][self.seed % 4]
        self._ask(NOBODY, auth.AuthenticateRequest(name=name, password=password))

    def _watch(self) -> None:
        """Whether a watch may be created; what it then tells is compared elsewhere."""
        who, (key, end) = self._somebody(), self._span()
        if end == b"\x00":
            who = ROOT
        request = watch.WatchRequest(create_request=watch.WatchCreateRequest(key=key, range_end=end))
        told = []
        for target, token in zip(self.both, self._tokens_of(who), strict=True):
            stream = target.watch(token=token)
            stream.send(request)
            first: watch.WatchResponse = stream.next(0)
            told.append((first.created, first.canceled))
            stream.close()
        if told[0] != told[1]:
            raise self._difference(who, request, f"(created, canceled) {told[0]} != {told[1]}")

    # Requests.

    def _range(self) -> Message:
        key, end = self._span()
        return kv.RangeRequest(
            key=key, range_end=end, limit=self.rng.choice([0, 1]), count_only=self._maybe(0.1),
            serializable=self._maybe(0.2) and not self._several, revision=self.rng.choice([0, 0, 0, 1 << 40]),
        )  # fmt: skip

    def _put(self) -> kv.PutRequest:
        request = kv.PutRequest(key=self.rng.choice(KEYS), value=b"v", prev_kv=self._maybe(0.3))
        if self._maybe(0.3):
            request.lease = self.rng.choice([*LEASES, 99])
        elif self._maybe(0.1):
            request.value, request.ignore_value = b"", True
        return request

    def _delete(self) -> kv.DeleteRangeRequest:
        key, end = self._span()
        return kv.DeleteRangeRequest(key=key, range_end=end, prev_kv=self._maybe(0.3))

    def _txn(self) -> kv.TxnRequest:
        request = kv.TxnRequest()
        if self._maybe(0.5):
            key, end = self._span()
            request.compare.append(kv.Compare(key=key, range_end=end, target=kv.Compare.VERSION, version=0))
        taken: set[bytes] = set()
        for branch in (request.success, request.failure):
            for _ in range(self.rng.randrange(3)):
                branch.append(self._operation(taken))
            taken.clear()
        if _wrong_way_round(request):
            for branch in (request.success, request.failure):
                read = [one for one in branch if one.HasField("request_range")]
                del branch[:]
                branch.extend(read)
        return request

    def _operation(self, taken: set[bytes]) -> kv.RequestOp:
        kind = self.rng.randrange(3)
        put = self._put()
        if kind == 0 and put.key not in taken and not taken & {b"everything"}:
            taken.add(put.key)
            # Of a put within a transaction 3.5.1 asks for WRITE on its key, and no more.
            put.ClearField("lease")
            put.ignore_value = put.prev_kv = False
            return kv.RequestOp(request_put=put)
        if kind == 1 and not taken:
            taken.add(b"everything")
            return kv.RequestOp(request_delete_range=self._delete())
        key, end = self._span()
        return kv.RequestOp(request_range=kv.RangeRequest(key=key, range_end=end))

    def _lease(self) -> Message:
        number = self.rng.choice([*LEASES, 99])
        made: Message = self.rng.choice(
            [
                lease.LeaseGrantRequest(ID=number if number != 99 else 3, TTL=LONG),
                lease.LeaseRevokeRequest(ID=number),
            ]
        )
        return made

    def _span(self, *, sound: bool = False) -> tuple[bytes, bytes]:
        """One key or a range; a `sound` one may be granted."""
        while True:
            key, end = self.rng.choice(KEYS), self.rng.choice([b"", b"", *ENDS])
            if not sound or not end or end == b"\x00" or end > key:
                return key, end

    def _maybe(self, probability: float) -> bool:
        return self.rng.random() < probability

    # Who.

    def _somebody(self) -> str:
        return self.rng.choice([*USERS * 4, ROOT, NOBODY, WRONG])

    def _tokens_of(self, who: str) -> tuple[str | None, str | None]:
        if who == NOBODY:
            return None, None
        if who == WRONG:
            return "QwErTyUiOpAsDfGh.1", "QwErTyUiOpAsDfGh.1"
        if who not in self._tokens and not (who in self._users and self._login(who)):
            return None, None
        return self._tokens[who]

    def _login(self, who: str) -> bool:
        """Whether there is such a user, on both."""
        request = auth.AuthenticateRequest(name=who, password="pw")
        theirs, ours = self._both(request, (None, None))
        if isinstance(theirs, Failed) or isinstance(ours, Failed):
            if theirs != ours:
                raise self._difference(who, request, f"{theirs} != {ours}")
            return False
        assert isinstance(theirs, auth.AuthenticateResponse)
        assert isinstance(ours, auth.AuthenticateResponse)
        self._tokens[who] = theirs.token, ours.token
        return True

    # Asking.

    def _ask(self, who: str, request: Message) -> Answers:
        theirs, ours = self._both(request, self._tokens_of(who))
        if self._forgotten(theirs) and self._forgotten(ours) and who in self._tokens:
            del self._tokens[who]  # the user was deleted, or has another password: both say so
            return theirs, ours
        found = difference(request, _comparable(theirs), _comparable(ours))
        if found and _wrong_way_round(request) and _denied(theirs) and not _denied(ours):
            # docs/api.md: "A range whose end is at or below its key". Transactions with one write nothing.
            self.wrong_way_round += 1
            return theirs, ours
        if found:
            raise self._difference(who, request, found)
        self.refused += _denied(ours)
        return theirs, ours

    def _both(self, request: Message, tokens: tuple[str | None, str | None]) -> Answers:
        first, second = (
            target.begin(request, token=token) for target, token in zip(self.both, tokens, strict=True)
        )
        return first(), second()

    def _level(self) -> None:
        """Members of ours that were not asked have the change, too: who comes at once must not be early."""
        for node in self.both[1].nodes[1:]:
            node.begin(kv.RangeRequest(key=b"level"), token=self._tokens[ROOT][1])()
        if len(self.both[1].nodes) > 1:
            self.both[1].nodes[0].begin(kv.RangeRequest(key=b"level"), token=self._tokens[ROOT][1])()

    @staticmethod
    def _forgotten(answer: Message | Failed) -> bool:
        return isinstance(answer, Failed) and answer.text == BAD_TOKEN

    def _difference(self, who: str, request: Message, found: str) -> Difference:
        asked = str(request).replace("\n", " ")
        return Difference(
            f"seed {self.seed}, request {self.requests}, {who}: {type(request).__name__} {asked}: {found}\n"
            f"{who} may: {self._held(who)}"
        )

    def _held(self, who: str) -> str:
        """The permissions of that user, as ours tells them."""
        target, token = self.both[1], self._tokens.get(ROOT, ("", ""))[1]
        user = target.begin(auth.AuthUserGetRequest(name=who), token=token)()
        held = []
        for role in user.roles if isinstance(user, auth.AuthUserGetResponse) else ():
            found = target.begin(auth.AuthRoleGetRequest(role=role), token=token)()
            if isinstance(found, auth.AuthRoleGetResponse):
                held += [(one.permType, one.key, one.range_end) for one in found.perm]
        return str(held)


def _denied(answer: Message | Failed) -> bool:
    return isinstance(answer, Failed) and answer.code == "PERMISSION_DENIED"


def _wrong_way_round(request: Any) -> bool:
    """Whether some range in it ends before it begins."""
    match request:
        case kv.RangeRequest() | kv.DeleteRangeRequest() | kv.Compare():
            return b"\x00" != request.range_end != b"" and request.range_end <= request.key
        case kv.TxnRequest():
            inner = (
                getattr(one, str(one.WhichOneof("request"))) for one in (*request.success, *request.failure)
            )
            return any(_wrong_way_round(one) for one in (*request.compare, *inner))
        case _:
            return False


def _comparable(answer: Message | Failed) -> Message | Failed:
    """Without the token, which is another each time; and permissions of one key in one order.

    The reference sorts a role's permissions by their keys after each grant, with Go's sort.Sort: up to six
    of them (from Go 1.19 on, up to twelve) stay in the order of their grants where keys are equal, which is
    ours; beyond that the order of one key's is an accident of the algorithm. How often one is there depends
    on it too: one that is granted again is there twice unless it is the first of its key.
    """
    if isinstance(answer, auth.AuthRoleGetResponse):
        assert [one.key for one in answer.perm] == sorted(one.key for one in answer.perm)
        told = auth.AuthRoleGetResponse()
        told.CopyFrom(answer)
        del told.perm[:]
        ranges = {(one.key, one.range_end, one.permType) for one in answer.perm}
        told.perm.extend(
            auth.Permission(key=key, range_end=end, permType=kind) for key, end, kind in sorted(ranges)
        )
        return told
    if isinstance(answer, auth.AuthenticateResponse):
        plain: Any = auth.AuthenticateResponse()
        plain.CopyFrom(answer)
        plain.token = "some" if answer.token else ""
        return plain  # type: ignore[no-any-return]
    return answer
