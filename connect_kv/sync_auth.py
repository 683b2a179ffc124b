"""What blocks in place of a coroutine, and ``client.auth`` of the blocking client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar

from connect_kv.client.auth import AuthClient as AsyncAuthClient

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")


class Run(Protocol):
    """Runs a coroutine on the client's loop and waits for it."""

    def __call__(self, coroutine: Coroutine[object, object, T]) -> T:
        """Its result, or what it raised."""


class Blocking(Generic[A]):
    """Stands for something asynchronous, and waits for its coroutines."""

    def __init__(self, asynchronous: A, run: Run) -> None:
        self._asynchronous = asynchronous
        self._runner = run

    def _run(self, coroutine: Coroutine[object, object, T]) -> T:
        return self._runner(coroutine)


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[Blocking[A], P], T]:
    """A method that waits for that coroutine, with its name, its arguments and what it says."""

    @wraps(method)
    def call(stands: Blocking[A], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return stands._run(method(stands._asynchronous, *args, **kwargs))

    return call


class AuthClient(Blocking[AsyncAuthClient]):
    """Users, roles and what these may do; see `connect_kv.client.auth.AuthClient`."""

    enable = blocking(AsyncAuthClient.enable)
    disable = blocking(AsyncAuthClient.disable)
    status = blocking(AsyncAuthClient.status)
    login = blocking(AsyncAuthClient.login)
    add_user = blocking(AsyncAuthClient.add_user)
    delete_user = blocking(AsyncAuthClient.delete_user)
    change_password = blocking(AsyncAuthClient.change_password)
    user = blocking(AsyncAuthClient.user)
    users = blocking(AsyncAuthClient.users)
    grant_role = blocking(AsyncAuthClient.grant_role)
    revoke_role = blocking(AsyncAuthClient.revoke_role)
    add_role = blocking(AsyncAuthClient.add_role)
    delete_role = blocking(AsyncAuthClient.delete_role)
    role = blocking(AsyncAuthClient.role)
    roles = blocking(AsyncAuthClient.roles)
    grant = blocking(AsyncAuthClient.grant)
    revoke = blocking(AsyncAuthClient.revoke)
    grant_machine = blocking(AsyncAuthClient.grant_machine)
    revoke_machine = blocking(AsyncAuthClient.revoke_machine)
