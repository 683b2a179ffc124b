"""connect_kv.v1.Auth and etcdserverpb.Auth: users, roles, and the switch."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from connect_kv.auth.attempts import MOST_WAITING, LoginAttempts
from connect_kv.auth.passwords import Passwords
from connect_kv.auth.permissions import FROM_KEY, usable
from connect_kv.auth.table import (
    INVALID_MANAGEMENT,
    LOGIN_FAILED,
    NO_PERMISSION_GIVEN,
    NOT_ENABLED,
    ROLE_NOT_FOUND,
    ROOT,
    USER_NOT_FOUND,
    AuthTable,
)
from connect_kv.auth.tokens import Tokens
from connect_kv.errors import Overloaded, Refused
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.interfaces import Clock
from connect_kv.rpc import auth_pb2
from connect_kv.rpc.auth_pb2 import AuthChange, AuthLogin, Permission
from connect_kv.rpc.kv_pb2 import ResponseHeader
from connect_kv.services.access import Access
from connect_kv.services.caller import Caller
from connect_kv.services.executor import BY_SERVER, CommandExecutor, field_number


class _Headed(Protocol):
    @property
    def header(self) -> ResponseHeader: ...


R = TypeVar("R", bound=_Headed)

_AUTH = field_number("auth")
NO_PASSWORD_USER = Refusal(
    Code.UNKNOWN, "auth: authentication failed, password was given for no password user"
)
_WRONG = frozenset((LOGIN_FAILED.message, NO_PASSWORD_USER.message))
"""What a login that may be a guess is told."""
_EVERYTHING = Permission(permType=Permission.READWRITE, range_end=FROM_KEY)
"""What the role root is shown to have, whatever was granted to it."""


def _change(
    field: str, response: Callable[[], R]
) -> Callable[[AuthService, Message, Caller], Coroutine[object, object, R]]:
    """A method that proposes its request as that field of an AuthChange, for who may manage."""

    async def method(service: AuthService, request: Message, caller: Caller) -> R:
        by = service._access.root(caller)
        await service._propose(AuthChange(**{field: request}), by)  # type: ignore[arg-type]  # a field of its own
        return service._headed(response())

    return method


class AuthService:
    """Management is for who holds the role root, once authentication is on; logging in is for everybody."""

    def __init__(
        self,
        executor: CommandExecutor,
        table: AuthTable,
        access: Access,
        passwords: Passwords,
        tokens: Tokens,
        rng: random.Random,
        *,
        clock: Clock,
    ) -> None:
        """`rng` must be one that nobody can predict: tokens come from it."""
        self._clock = clock
        self.attempts = LoginAttempts(clock.now)
        self._waiting = 0
        self._executor = executor
        self._table = table
        self._access = access
        self._passwords = passwords
        self._tokens = tokens
        self._rng = rng

    AuthEnable = _change("enable", auth_pb2.AuthEnableResponse)
    """From the next entry on everybody has to say who they are."""

    AuthDisable = _change("disable", auth_pb2.AuthDisableResponse)
    """Nobody has to any more; all tokens are forgotten."""

    async def AuthStatus(
        self, request: auth_pb2.AuthStatusRequest, caller: Caller
    ) -> auth_pb2.AuthStatusResponse:
        """Whether it is on, and the auth revision."""
        await self._access.behind(self._executor.barrier, lambda: self._access.root(caller))
        return self._headed(
            auth_pb2.AuthStatusResponse(enabled=self._table.enabled, authRevision=self._table.revision)
        )

    async def Authenticate(
        self, request: auth_pb2.AuthenticateRequest, caller: Caller
    ) -> auth_pb2.AuthenticateResponse:
        """Log in: compare the password, then have the log say that it was right, and as of when.

        Who has failed before waits first, or is refused (`auth.attempts`), at no cost to others.
        """
        if not self._table.enabled:
            await self._executor.barrier()
            if not self._table.enabled:
                raise NOT_ENABLED.error()
        await self._turn(self.attempts.begin(request.name, caller.address))
        try:
            answer = await self._log_in(request)
        except Refused as refused:
            if refused.message in _WRONG:
                self.attempts.end(request.name, caller.address, good=False)
            raise
        self.attempts.end(request.name, caller.address, good=True)
        return answer

    async def _turn(self, wait: float) -> None:
        """Until so many seconds are over. Raises Overloaded where too many wait for theirs."""
        if wait <= 0:
            return
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many logins wait for their turn")
        self._waiting += 1
        try:
            await self._clock.sleep(wait)
        finally:
            self._waiting -= 1

    async def _log_in(self, request: auth_pb2.AuthenticateRequest) -> auth_pb2.AuthenticateResponse:
        await self._executor.barrier()
        while True:
            if not self._table.enabled:
                raise NOT_ENABLED.error()
            user, revision = self._table.users.get(request.name), self._table.revision
            if user is None:
                # As long as for a wrong password: who tries names must not learn which there are.
                await self._passwords.matches(request.password, self._passwords.decoy)
                raise LOGIN_FAILED.error()
            if user.no_password:
                raise NO_PASSWORD_USER.error()
            if not await self._passwords.matches(request.password, user.password_hash):
                raise LOGIN_FAILED.error()
            login = AuthLogin(name=request.name, token=self._tokens.begin(self._rng), auth_revision=revision)
            token = (await self._propose(AuthChange(login=login), BY_SERVER)).token
            if token:
                token = self._tokens.finish(request.name, revision, token)
                return self._headed(auth_pb2.AuthenticateResponse(token=token))

    async def UserAdd(
        self, request: auth_pb2.AuthUserAddRequest, caller: Caller
    ) -> auth_pb2.AuthUserAddResponse:
        """Add a user; its password is hashed here, before it enters the log.

        For who may: a hash costs a thread 50 ms, which logins need.
        """
        hashed = not request.options.no_password
        if hashed:
            self._passwords.check(request.password)
        by = self._access.root(caller)
        request.hashedPassword = await self._passwords.hash(request.password) if hashed else ""
        request.password = ""
        await self._propose(AuthChange(user_add=request), by)
        return self._headed(auth_pb2.AuthUserAddResponse())

    async def UserGet(
        self, request: auth_pb2.AuthUserGetRequest, caller: Caller
    ) -> auth_pb2.AuthUserGetResponse:
        """The roles of a user: for root, and for that user."""
        await self._access.behind(self._executor.barrier, lambda: self._access.user(caller, request.name))
        user = self._table.users.get(request.name)
        if user is None:
            raise USER_NOT_FOUND.error()
        return self._headed(auth_pb2.AuthUserGetResponse(roles=user.roles))

    async def UserList(
        self, request: auth_pb2.AuthUserListRequest, caller: Caller
    ) -> auth_pb2.AuthUserListResponse:
        """All names, in byte order."""
        await self._access.behind(self._executor.barrier, lambda: self._access.root(caller))
        return self._headed(auth_pb2.AuthUserListResponse(users=_sorted(self._table.users)))

    UserDelete = _change("user_delete", auth_pb2.AuthUserDeleteResponse)
    """The user and its tokens."""

    async def UserChangePassword(
        self, request: auth_pb2.AuthUserChangePasswordRequest, caller: Caller
    ) -> auth_pb2.AuthUserChangePasswordResponse:
        """A new password; the user's tokens end. An empty one locks the user out, as in etcd."""
        self._passwords.check(request.password)
        by = self._access.root(caller)
        hashed = await self._passwords.hash(request.password) if request.password else ""
        request.hashedPassword, request.password = hashed, ""
        await self._propose(AuthChange(user_change_password=request), by)
        return self._headed(auth_pb2.AuthUserChangePasswordResponse())

    UserGrantRole = _change("user_grant_role", auth_pb2.AuthUserGrantRoleResponse)
    """Give a role to a user."""

    UserRevokeRole = _change("user_revoke_role", auth_pb2.AuthUserRevokeRoleResponse)
    """Take a role from a user."""

    RoleAdd = _change("role_add", auth_pb2.AuthRoleAddResponse)
    """Add a role without permissions."""

    async def RoleGet(
        self, request: auth_pb2.AuthRoleGetRequest, caller: Caller
    ) -> auth_pb2.AuthRoleGetResponse:
        """The permissions of a role: for root, and for who holds it."""
        await self._access.behind(self._executor.barrier, lambda: self._access.role(caller, request.role))
        role = self._table.roles.get(request.role)
        if role is None:
            raise ROLE_NOT_FOUND.error()
        shown = [_EVERYTHING] if role.name == ROOT else role.permissions
        return self._headed(auth_pb2.AuthRoleGetResponse(perm=shown, machines=role.machines))

    async def RoleList(
        self, request: auth_pb2.AuthRoleListRequest, caller: Caller
    ) -> auth_pb2.AuthRoleListResponse:
        """All names, in byte order."""
        await self._access.behind(self._executor.barrier, lambda: self._access.root(caller))
        return self._headed(auth_pb2.AuthRoleListResponse(roles=_sorted(self._table.roles)))

    RoleDelete = _change("role_delete", auth_pb2.AuthRoleDeleteResponse)
    """The role; nobody holds it any more."""

    async def RoleGrantPermission(
        self, request: auth_pb2.AuthRoleGrantPermissionRequest, caller: Caller
    ) -> auth_pb2.AuthRoleGrantPermissionResponse:
        """A range of keys, or a machine, for a role."""
        by = self._access.root(caller)
        if not request.HasField("machine"):
            if not request.HasField("perm"):
                raise NO_PERMISSION_GIVEN.error()
            if not usable(request.perm):
                raise INVALID_MANAGEMENT.error()
        await self._propose(AuthChange(role_grant_permission=request), by)
        return self._headed(auth_pb2.AuthRoleGrantPermissionResponse())

    RoleRevokePermission = _change("role_revoke_permission", auth_pb2.AuthRoleRevokePermissionResponse)
    """Take exactly that range, or that machine, away."""

    async def _propose(self, change: AuthChange, by: bytes) -> auth_pb2.AuthChanged:
        return (await self._executor.execute(_AUTH, change.SerializeToString(), by)).auth

    def _headed(self, response: R) -> R:
        """With the header of now; its revision is that of keys, which nothing here changes."""
        response.header.CopyFrom(self._executor.header())
        return response


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=str.encode)
