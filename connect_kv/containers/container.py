"""What the typed clients have in common: a machine of one class, and the errors of a container."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import msgspec

from connect_kv import errors
from connect_kv.client.client import Client
from connect_kv.framework.replicated import Replicated

M = TypeVar("M", bound=Replicated)
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")

_ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (KeyError, IndexError, ValueError)}


class TypedClient(Generic[M]):
    """Calls a machine of the class `M` under a name. Raises as calls of machines do."""

    def __init__(self, client: Client, name: str, machine: type[M]) -> None:
        self._client = client
        self._name = name
        self._machine = client.machine(name, machine)

    async def _call(self, method: Callable[Concatenate[M, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """A call of the machine, but a KeyError, IndexError or ValueError of the machine is one here."""
        try:
            return await self._machine.call(method, *args, **kwargs)
        except errors.CommandFailed as failed:
            if (kind := _ERRORS.get(failed.type)) is not None:
                raise kind(failed.message) from None
            raise


def forwarded(
    method: Callable[Concatenate[M, P], R],
) -> Callable[Concatenate[TypedClient[M], P], Coroutine[object, object, R]]:
    """A method that calls this one of the machine, with its name, its arguments and what it says."""

    @wraps(method, updated=())  # not its mark of a command: that is for the machine's class
    async def call(client: TypedClient[M], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await client._call(method, *args, **kwargs)

    return call


class Values(Generic[V]):
    """Values of one type on their way: what a machine holds is plain data."""

    def __init__(self, kind: type[V]) -> None:
        self._kind = kind

    def out(self, held: Any) -> V:
        """As a value of the type. Raises msgspec.ValidationError if it is none."""
        return msgspec.convert(held, self._kind)

    def into(self, value: V) -> Any:
        """A value of the type as plain data, which a machine can hold."""
        return msgspec.to_builtins(value, builtin_types=(bytes,))
