"""``client.auth`` of the blocking client."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Protocol, TypeVar

from connect_kv.client.auth import AuthClient as AsyncAuthClient
from connect_kv.client.auth import AuthRole
from connect_kv.client.ranges import Text
from connect_kv.rpc.auth_pb2 import MachinePermission, Permission

T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine on the client's loop and waits for it."""

    def __call__(self, coroutine: Coroutine[object, object, T]) -> T:
        """Its result, or what it raised."""


class AuthClient:
    """Users, roles and what these may do; see `connect_kv.client.auth.AuthClient`."""

    def __init__(self, auth: AsyncAuthClient, run: Run) -> None:
        self._auth = auth
        self._run = run

    def enable(self, *, timeout: float | None = None) -> None:
        """From now on everybody has to say who they are. There must be a user ``root`` with that role."""
        self._run(self._auth.enable(timeout=timeout))

    def disable(self, *, timeout: float | None = None) -> None:
        """Nobody has to any more; all tokens end."""
        self._run(self._auth.disable(timeout=timeout))

    def status(self, *, timeout: float | None = None) -> tuple[bool, int]:
        """Whether it is on, and the auth revision, which every change of users and roles raises."""
        return self._run(self._auth.status(timeout=timeout))

    def login(self, user: str, password: str, *, timeout: float | None = None) -> str:
        """A token, for ``connect(token=...)``. A client that was given the password needs none."""
        return self._run(self._auth.login(user, password, timeout=timeout))

    def add_user(self, name: str, password: str | None = None, *, timeout: float | None = None) -> None:
        """Add a user; without a password only a certificate with that CommonName can be it."""
        self._run(self._auth.add_user(name, password, timeout=timeout))

    def delete_user(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a user; its tokens die on all members, and its watches end."""
        self._run(self._auth.delete_user(name, timeout=timeout))

    def change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        """Give a user another password; its tokens end. An empty one locks it out."""
        self._run(self._auth.change_password(name, password, timeout=timeout))

    def user(self, name: str, *, timeout: float | None = None) -> list[str]:
        """The roles a user holds, in order."""
        return self._run(self._auth.user(name, timeout=timeout))

    def users(self, *, timeout: float | None = None) -> list[str]:
        """Names of all users, in order."""
        return self._run(self._auth.users(timeout=timeout))

    def grant_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Have a user hold a role. ``root`` is one that need not be added."""
        self._run(self._auth.grant_role(user, role, timeout=timeout))

    def revoke_role(self, user: str, role: str, *, timeout: float | None = None) -> None:
        """Take a role from a user."""
        self._run(self._auth.revoke_role(user, role, timeout=timeout))

    def add_role(self, name: str, *, timeout: float | None = None) -> None:
        """Add a role, which may do nothing yet."""
        self._run(self._auth.add_role(name, timeout=timeout))

    def delete_role(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a role; nobody holds it any more."""
        self._run(self._auth.delete_role(name, timeout=timeout))

    def role(self, name: str, *, timeout: float | None = None) -> AuthRole:
        """What a role may do."""
        return self._run(self._auth.role(name, timeout=timeout))

    def roles(self, *, timeout: float | None = None) -> list[str]:
        """Names of all roles, in order."""
        return self._run(self._auth.roles(timeout=timeout))

    def grant(
        self,
        role: str,
        kind: Permission.Type.ValueType,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Let a role READ, WRITE or READWRITE a key, ``[key, range_end)`` or a prefix; an empty one: all."""
        self._run(self._auth.grant(role, kind, key, range_end, prefix=prefix, timeout=timeout))

    def revoke(
        self,
        role: str,
        key: Text,
        range_end: Text = b"",
        *,
        prefix: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Take exactly that range, as it was granted, from a role."""
        self._run(self._auth.revoke(role, key, range_end, prefix=prefix, timeout=timeout))

    def grant_machine(
        self,
        role: str,
        kind: MachinePermission.Type.ValueType,
        machine: str = "",
        *,
        timeout: float | None = None,
    ) -> None:
        """Let a role send QUERY, or COMMAND and queries, to a machine, or to all of them."""
        self._run(self._auth.grant_machine(role, kind, machine, timeout=timeout))

    def revoke_machine(self, role: str, machine: str = "", *, timeout: float | None = None) -> None:
        """Take a machine, as it was granted, from a role."""
        self._run(self._auth.revoke_machine(role, machine, timeout=timeout))
