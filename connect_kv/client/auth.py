"""AuthClient: users, roles and what these may do, and whether anybody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from connect_kv.client.endpoints import Endpoints
from connect_kv.client.ranges import Text, span
from connect_kv.client.retry import UnaryCalls
from connect_kv.rpc import auth_pb2
from connect_kv.rpc.auth_pb2 import (
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    MachinePermission,
    Permission,
    UserAddOptions,
)

__all__ = ["COMMAND", "QUERY", "READ", "READWRITE", "WRITE", "AuthClient", "AuthRole"]

READ = Permission.READ
WRITE = Permission.WRITE
READWRITE = Permission.READWRITE
QUERY = MachinePermission.QUERY
COMMAND = MachinePermission.COMMAND
"""Includes queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthRole:
    """What a role may do."""

    name: str
    permissions: Sequence[Permission]
    """Ranges of keys, by key: `permType` is READ, WRITE or READWRITE; `range_end` as in requests."""
    machines: Sequence[MachinePermission]
    """Machines: `permType` is QUERY or COMMAND; an empty name stands for all of them."""


class AuthClient:
    """``client.auth``, as etcd's. Users and roles can be made before anybody is asked who they are.

    Once that is on (`enable`), only who holds the role ``root`` may do what is here, but for `login`, and
    for looking up oneself and one's own roles. Calls raise Refused with etcd's text; those that change
    something raise OutcomeUnknown if the answer is lost: look then.
    """

    def __init__(self, endpoints: Endpoints, timeout: float) -> None:
        self._calls = UnaryCalls(endpoints, timeout)

    async def enable(self, *, timeout: float | None = None) -> None:
        """From now on everybody has to say who they are. There must be a user ``root`` with that role."""
        request = auth_pb2.AuthEnableRequest()
        # It writes, but to say the same again does no harm.
        await self._calls.ask(lambda stubs: stubs.auth_enable, request, timeout, writes=False)

    async def disable(self, *, timeout: float | None = None) -> None:
        """Nobody has to any more; all tokens end."""
        request = auth_pb2.AuthDisableRequest()
        await self._calls.ask(lambda stubs: stubs.auth_disable, request, timeout, writes=False)

    async def status(self, *, timeout: float | None = None) -> tuple[bool, int]:
        """Whether it is on, and the auth revision, which every change of users and roles raises."""
        request = auth_pb2.AuthStatusRequest()
        answer = await self._calls.ask(lambda stubs: stubs.auth_status, request, timeout, writes=False)
        return answer.enabled, answer.authRevision

    async def login(self, user: str, password: str, *, timeout: float | None = None) -> str:
        """A token, for ``connect(token=...)``. A client that was given the password needs none."""
        request = auth_pb2.AuthenticateRequest(name=user, password=password)
        answer = await self._calls.ask(lambda stubs: stubs.authenticate, request, timeout, writes=False)
        return answer.token

    async def add_user(self, name: str, password: str | None = None, *, timeout: float | None = None) -> None:
        """Add a user; without a password only a certificate with that CommonName can be it."""
        options = UserAddOptions(no_password=password is None)
        request = auth_pb2.AuthUserAddRequest(name=name, password=password or "", options=options)
        await self._calls.ask(lambda stubs: stubs.user_add, request, timeout, writes=True)

    async def delete_user(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a user; its tokens die on all members, and its watches end."""
        request = auth_pb2.AuthUserDeleteRequest(name=name)
        await self._calls.ask(lambda stubs: stubs.user_delete, request, timeout, writes=True)

    async def change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        """Give a user another password; its tokens end. An empty one locks it out."""
        request = auth_pb2.AuthUserChangePasswordRequest(name=name, password=password)
        # It writes, but the same password once more does no harm.
        await self._calls.ask(lambda stubs: stubs.user_change_password, request, timeout, writes=False)

    async def user(self, name: str, *, timeout: float | None = None) -> list[str]:
        """The roles a user holds, in order."""
        request = auth_pb2.AuthUserGetRequest(name=name)
        answer = await self._calls.ask(lambda stubs: stubs.user_get, request, timeout, writes=False)
        return list(answer.roles)

    async def users(self, *, timeout: float | None = None) -> list[str]:
        """Names of all users, in order."""
        request = auth_pb2.AuthUserListRequest()
        answer = await self._calls.ask(lambda stubs: stubs.user_list, request, timeout, writes=False)
        return list(answer.users)

    async def grant_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Have a user hold a role. ``root`` is one that need not be added."""
        request = auth_pb2.AuthUserGrantRoleRequest(user=user, role=role)
        # It writes, but a role that is held already counts as granted.
        await self._calls.ask(lambda stubs: stubs.user_grant_role, request, timeout, writes=False)

    async def revoke_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Take a role from a user."""
        request = auth_pb2.AuthUserRevokeRoleRequest(name=user, role=role)
        await self._calls.ask(lambda stubs: stubs.user_revoke_role, request, timeout, writes=True)

    async def add_role(self, name: str, *, timeout: float | None = None) -> None:
        """Add a role, which may do nothing yet."""
        request = auth_pb2.AuthRoleAddRequest(name=name)
        await self._calls.ask(lambda stubs: stubs.role_add, request, timeout, writes=True)

    async def delete_role(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a role; nobody holds it any more."""
        request = auth_pb2.AuthRoleDeleteRequest(role=name)
        await self._calls.ask(lambda stubs: stubs.role_delete, request, timeout, writes=True)

    async def role(self, name: str, *, timeout: float | None = None) -> AuthRole:
        """What a role may do."""
        request = auth_pb2.AuthRoleGetRequest(role=name)
        answer = await self._calls.ask(lambda stubs: stubs.role_get, request, timeout, writes=False)
        return AuthRole(name=name, permissions=tuple(answer.perm), machines=tuple(answer.machines))

    async def roles(self, *, timeout: float | None = None) -> list[str]:
        """Names of all roles, in order."""
        request = auth_pb2.AuthRoleListRequest()
        answer = await self._calls.ask(lambda stubs: stubs.role_list, request, timeout, writes=False)
        return list(answer.roles)

    async def grant(
        self,
        role: str,
        kind: Permission.Type.ValueType,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Let a role READ, WRITE or READWRITE a key, ``[key, range_end)`` or a prefix; an empty one is all.

        A range that was granted before gets the new kind.
        """
        start, end = span(key, range_end, prefix)
        permission = Permission(permType=kind, key=start, range_end=end)
        await self._grant(AuthRoleGrantPermissionRequest(name=role, perm=permission), timeout)

    async def revoke(
        self,
        role: str,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Take exactly that range, as it was granted, from a role."""
        start, end = span(key, range_end, prefix)
        await self._revoke(AuthRoleRevokePermissionRequest(role=role, key=start, range_end=end), timeout)

    async def grant_machine(
        self,
        role: str,
        kind: MachinePermission.Type.ValueType,
        machine: str = "",
        *,
        timeout: float | None = None,
    ) -> None:
        """Let a role send QUERY, or COMMAND and queries, to a machine, or to all of them."""
        permission = MachinePermission(permType=kind, machine=machine)
        await self._grant(AuthRoleGrantPermissionRequest(name=role, machine=permission), timeout)

    async def revoke_machine(self, role: str, machine: str = "", *, timeout: float | None = None) -> None:
        """Take a machine, as it was granted, from a role."""
        permission = MachinePermission(machine=machine)
        await self._revoke(AuthRoleRevokePermissionRequest(role=role, machine=permission), timeout)

    async def _grant(self, request: AuthRoleGrantPermissionRequest, timeout: float | None) -> None:
        # It writes, but the same right once more does no harm.
        await self._calls.ask(lambda stubs: stubs.role_grant_permission, request, timeout, writes=False)

    async def _revoke(self, request: AuthRoleRevokePermissionRequest, timeout: float | None) -> None:
        await self._calls.ask(lambda stubs: stubs.role_revoke_permission, request, timeout, writes=True)
