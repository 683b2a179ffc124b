"""AuthTable: users, roles, and whether anybody has to say who they are. A part of the replicated state.

All of it is in memory beside its records: there are few users, and every call asks. Simple tokens are in
memory only, as in etcd: each member makes the same ones from the log, and forgets them when it is started
again.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping
from types import MappingProxyType

from google.protobuf.message import DecodeError

from connect_kv.auth.permissions import Rights, rights_of, usable
from connect_kv.errors import CorruptStorage
from connect_kv.etcd_errors import Code, Refusal
from connect_kv.kv.layout import Changes
from connect_kv.kv.proposer import BY_SERVER
from connect_kv.rpc.auth_pb2 import (
    AuthChange,
    AuthChanged,
    AuthLogin,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    MachinePermission,
    Permission,
    StoredAuth,
    StoredRole,
    StoredUser,
)
from connect_kv.storage import codec
from connect_kv.storage.engine import Reader

ROOT = "root"
"""The user without whom authentication cannot be enabled, and the role that may do everything."""

NO_USER_NAME = Refusal(Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
USER_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: user name already exists")
USER_NOT_FOUND = Refusal(Code.FAILED_PRECONDITION, "etcdserver: user name not found")
NO_ROLE_NAME = Refusal(Code.INVALID_ARGUMENT, "etcdserver: role name is empty")
ROLE_EXISTS = Refusal(Code.FAILED_PRECONDITION, "etcdserver: role name already exists")
ROLE_NOT_FOUND = Refusal(Code.FAILED_PRECONDITION, "etcdserver: role name not found")
ROLE_NOT_GRANTED = Refusal(Code.FAILED_PRECONDITION, "etcdserver: role is not granted to the user")
NOT_GRANTED = Refusal(Code.FAILED_PRECONDITION, "etcdserver: permission is not granted to the role")
NO_PERMISSION_GIVEN = Refusal(Code.INVALID_ARGUMENT, "etcdserver: permission not given")
INVALID_MANAGEMENT = Refusal(Code.INVALID_ARGUMENT, "etcdserver: invalid auth management")
NO_ROOT_USER = Refusal(Code.FAILED_PRECONDITION, "etcdserver: root user does not exist")
ROOT_WITHOUT_ROLE = Refusal(Code.FAILED_PRECONDITION, "etcdserver: root user does not have root role")
NOT_ENABLED = Refusal(Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
LOGIN_FAILED = Refusal(
    Code.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"
)

_HEAD = bytes((codec.AUTH, 0))
_USER = bytes((codec.AUTH, 1))
_ROLE = bytes((codec.AUTH, 2))
_NOTHING = rights_of((), (), root=False)


class AuthRefused(Exception):
    """A change that does not happen, alike on all members."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class AuthTable:
    """Used by apply; services see what the last whole slice left."""

    def __init__(self) -> None:
        self.enabled = False
        """Whether callers have to be known. This and the next two are asked several times for every call:
        they are kept beside the record that they are in."""
        self.revision = 1
        """Etcd's auth revision: from 1, apart from that of keys."""
        self.generation = 0
        """Rises with every change, also where etcd's revision does not: what was judged under an older one is
        judged again when it is applied."""
        self._users: dict[str, StoredUser] = {}
        self._roles: dict[str, StoredRole] = {}
        self.users: Mapping[str, StoredUser] = MappingProxyType(self._users)
        """Every user, by name."""
        self.roles: Mapping[str, StoredRole] = MappingProxyType(self._roles)
        """By name. The role root may be held without being among them."""
        self._rights: dict[str, Rights] = {}
        """Put together when first asked for; forgotten with every change."""
        self._tokens: dict[str, str] = {}
        """Simple tokens: whose each is."""
        self.changed: Callable[[], None] = lambda: None
        """Told after every change that may take a right away: watches look at theirs again."""

    def load(self, reader: Reader) -> None:
        """Replace everything by what is stored. Raises CorruptStorage."""
        stored = StoredAuth(revision=1)
        for table in (self._users, self._roles, self._rights, self._tokens):
            table.clear()
        try:
            for key, value in reader.iterate(bytes((codec.AUTH,)), bytes((codec.AUTH + 1,))):
                if key.startswith(_USER):
                    user = StoredUser.FromString(value)
                    self._users[user.name] = user
                elif key.startswith(_ROLE):
                    role = StoredRole.FromString(value)
                    self._roles[role.name] = role
                else:
                    stored = StoredAuth.FromString(value)
        except DecodeError as error:
            raise CorruptStorage("state", f"users and roles: {error}") from error
        self.enabled, self.revision, self.generation = stored.enabled, stored.revision, stored.generation

    # Reads.

    def judge_again(self, judged: int) -> bool:
        """Whether a command judged under that generation has to be judged again before it is applied.

        True also for one that came before authentication was switched on: then nobody was asked who they are.
        """
        return self.enabled and judged not in (self.generation, BY_SERVER)

    def rights(self, name: str) -> Rights:
        """What that user may do; nothing if there is none."""
        rights = self._rights.get(name)
        if rights is None:
            user = self._users.get(name)
            if user is None:
                return _NOTHING
            held = [self._roles[role] for role in user.roles if role in self._roles]
            rights = self._rights[name] = rights_of(
                (one for role in held for one in role.permissions),
                (one for role in held for one in role.machines),
                root=ROOT in user.roles,
            )
        return rights

    @property
    def tokens(self) -> Mapping[str, str]:
        """The simple tokens, and whose each is."""
        return MappingProxyType(self._tokens)

    def user_of_token(self, token: str) -> str | None:
        """Whose simple token that is."""
        return self._tokens.get(token)

    def forget_token(self, token: str) -> None:
        """Nobody has used it for long; on this member only."""
        self._tokens.pop(token, None)

    # Changes.

    def apply(self, change: AuthChange, index: int, changes: Changes) -> AuthChanged:
        """Carry it out. Raises AuthRefused: then nothing has changed."""
        done = AuthChanged()
        match change.WhichOneof("change"):
            case "enable":
                self._enable(changes)
            case "disable":
                self._disable(changes)
            case "login":
                done.token = self._login(change.login, index)
            case "user_add":
                self._user_add(change.user_add, changes)
            case "user_delete":
                self._user_delete(change.user_delete, changes)
            case "user_change_password":
                self._user_change_password(change.user_change_password, changes)
            case "user_grant_role":
                self._user_grant_role(change.user_grant_role, changes)
            case "user_revoke_role":
                self._user_revoke_role(change.user_revoke_role, changes)
            case "role_add":
                self._role_add(change.role_add, changes)
            case "role_delete":
                self._role_delete(change.role_delete, changes)
            case "role_grant_permission":
                self._role_grant(change.role_grant_permission, changes)
            case "role_revoke_permission":
                self._role_revoke(change.role_revoke_permission, changes)
            case _:
                raise NotImplementedError
        return done

    def _enable(self, changes: Changes) -> None:
        if self.enabled:
            return
        root = self._users.get(ROOT)
        if root is None:
            raise AuthRefused(NO_ROOT_USER)
        if ROOT not in root.roles:
            raise AuthRefused(ROOT_WITHOUT_ROLE)
        self.enabled = True
        self._note(changes, counted=False)

    def _disable(self, changes: Changes) -> None:
        if self.enabled:
            self.enabled = False
            self._tokens.clear()
            self._note(changes)

    def _login(self, login: AuthLogin, index: int) -> str:
        """The complete token; empty if the table has changed since the password was compared."""
        if not self.enabled:
            raise AuthRefused(NOT_ENABLED)
        if login.auth_revision != self.revision:
            return ""
        if login.name not in self._users:
            raise AuthRefused(LOGIN_FAILED)
        token = f"{login.token}.{index}"
        self._tokens[token] = login.name
        return token

    def _user_add(self, request: AuthUserAddRequest, changes: Changes) -> None:
        if not request.name:
            raise AuthRefused(NO_USER_NAME)
        if request.name in self._users:
            raise AuthRefused(USER_EXISTS)
        user = StoredUser(name=request.name, no_password=request.options.no_password)
        if not user.no_password:
            user.password_hash = request.hashedPassword.encode()
        self._put_user(user, changes)

    def _user_delete(self, request: AuthUserDeleteRequest, changes: Changes) -> None:
        if self.enabled and request.name == ROOT:
            raise AuthRefused(INVALID_MANAGEMENT)
        self._user(request.name)
        del self._users[request.name]
        self._forget_tokens(request.name)
        changes.delete(_USER + request.name.encode())
        self._note(changes)

    def _user_change_password(self, request: AuthUserChangePasswordRequest, changes: Changes) -> None:
        user = self._user(request.name)
        if not user.no_password:
            user.password_hash = request.hashedPassword.encode()
        self._forget_tokens(request.name)
        self._put_user(user, changes)

    def _user_grant_role(self, request: AuthUserGrantRoleRequest, changes: Changes) -> None:
        user = self._user(request.user)
        # The role root is held by name: it need not have been added.
        if request.role != ROOT and request.role not in self._roles:
            raise AuthRefused(ROLE_NOT_FOUND)
        if request.role in user.roles:
            return
        roles = list(user.roles)
        insort(roles, request.role)
        user.roles[:] = roles
        self._put_user(user, changes)

    def _user_revoke_role(self, request: AuthUserRevokeRoleRequest, changes: Changes) -> None:
        if self.enabled and request.name == ROOT and request.role == ROOT:
            raise AuthRefused(INVALID_MANAGEMENT)
        user = self._user(request.name)
        if request.role not in user.roles:
            raise AuthRefused(ROLE_NOT_GRANTED)
        user.roles.remove(request.role)
        self._put_user(user, changes)

    def _role_add(self, request: AuthRoleAddRequest, changes: Changes) -> None:
        if not request.name:
            raise AuthRefused(NO_ROLE_NAME)
        if request.name in self._roles:
            raise AuthRefused(ROLE_EXISTS)
        self._put_role(StoredRole(name=request.name), changes)

    def _role_delete(self, request: AuthRoleDeleteRequest, changes: Changes) -> None:
        if self.enabled and request.role == ROOT:
            raise AuthRefused(INVALID_MANAGEMENT)
        self._role(request.role)
        del self._roles[request.role]
        changes.delete(_ROLE + request.role.encode())
        for user in self._users.values():
            if request.role in user.roles:
                user.roles.remove(request.role)
                changes.put(*user_record(user))
        self._note(changes)

    def _role_grant(self, request: AuthRoleGrantPermissionRequest, changes: Changes) -> None:
        if request.HasField("machine"):
            role = self._role(request.name)
            kept = [one for one in role.machines if one.machine != request.machine.machine]
            role = StoredRole(name=role.name, permissions=role.permissions)
            role.machines.extend(sorted([*kept, request.machine], key=_of))
        else:
            if not request.HasField("perm"):
                raise AuthRefused(NO_PERMISSION_GIVEN)
            if not usable(request.perm):
                raise AuthRefused(INVALID_MANAGEMENT)
            role = self._role(request.name)
            role = StoredRole(
                name=role.name,
                permissions=_granted(list(role.permissions), request.perm),
                machines=role.machines,
            )
        self._put_role(role, changes)

    def _role_revoke(self, request: AuthRoleRevokePermissionRequest, changes: Changes) -> None:
        role = self._role(request.role)
        permissions, machines = list(role.permissions), list(role.machines)
        if request.HasField("machine"):
            machines = [one for one in machines if one.machine != request.machine.machine]
        else:
            wanted = (request.key, request.range_end)
            permissions = [one for one in permissions if _range(one) != wanted]
        if len(permissions) + len(machines) == len(role.permissions) + len(role.machines):
            raise AuthRefused(NOT_GRANTED)
        role = StoredRole(name=role.name, permissions=permissions, machines=machines)
        self._put_role(role, changes)

    def _user(self, name: str) -> StoredUser:
        user = self._users.get(name)
        if user is None:
            raise AuthRefused(USER_NOT_FOUND)
        return user

    def _role(self, name: str) -> StoredRole:
        role = self._roles.get(name)
        if role is None:
            raise AuthRefused(ROLE_NOT_FOUND)
        return role

    def _put_user(self, user: StoredUser, changes: Changes) -> None:
        self._users[user.name] = user
        changes.put(*user_record(user))
        self._note(changes)

    def _put_role(self, role: StoredRole, changes: Changes) -> None:
        self._roles[role.name] = role
        changes.put(*role_record(role))
        self._note(changes)

    def _forget_tokens(self, name: str) -> None:
        for token in [token for token, user in self._tokens.items() if user == name]:
            del self._tokens[token]

    def _note(self, changes: Changes, *, counted: bool = True) -> None:
        """Something has changed; `counted`: in etcd's revision, too."""
        self.generation += 1
        self.revision += counted
        self._rights.clear()
        stored = StoredAuth(enabled=self.enabled, revision=self.revision, generation=self.generation)
        changes.put(*standing_record(stored))
        self.changed()


def standing_record(stored: StoredAuth) -> tuple[bytes, bytes]:
    """Key and value of what stands beside users and roles."""
    return _HEAD, stored.SerializeToString()


def user_record(user: StoredUser) -> tuple[bytes, bytes]:
    """Key and value of a user."""
    return _USER + user.name.encode(), user.SerializeToString()


def role_record(role: StoredRole) -> tuple[bytes, bytes]:
    """Key and value of a role."""
    return _ROLE + role.name.encode(), role.SerializeToString()


def _granted(permissions: list[Permission], new: Permission) -> list[Permission]:
    """As etcd keeps them: by key, and only the first one of a key is compared. A second range of that key,
    granted again, is there twice; the copies do no harm, and a revocation takes all of them.
    """
    same = next((at for at, one in enumerate(permissions) if one.key == new.key), None)
    if same is not None and permissions[same].range_end == new.range_end:
        permissions[same] = new
        return permissions
    return sorted([*permissions, new], key=lambda one: one.key)


def _range(permission: Permission) -> tuple[bytes, bytes]:
    return permission.key, permission.range_end


def _of(one: MachinePermission) -> str:
    return one.machine
